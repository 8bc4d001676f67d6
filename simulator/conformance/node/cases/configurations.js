'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, module: addModule, fails, rest } = require('../hub');

// configuration adds one that goes with the case.
async function configuration(t, more) {
  const id = name('conf').toLowerCase();
  await registry.addConfiguration({ id, labels: {}, priority: 10, ...more });
  t.defer(() => registry.removeConfiguration(id).catch(() => {}));
  return id;
}

// settled reads a twin until it looks as wanted: a configuration is applied soon, and not at once.
async function settled(read, fits) {
  for (;;) {
    const { responseBody: twin } = await read();
    if (fits(twin)) return twin;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

test('configurations: add, get, list, update, remove', async (t) => {
  const id = await configuration(t, { targetCondition: "tags.none = 'x'", content: { deviceContent: { 'properties.desired.a': 1 } } });
  const { responseBody: got } = await registry.getConfiguration(id);
  assert.equal(got.id, id);
  assert.equal(got.priority, 10);
  assert.ok((await registry.getConfigurations()).responseBody.some((c) => c.id === id));
  const { responseBody: now } = await registry.updateConfiguration({ ...got, priority: 20 });
  assert.equal(now.priority, 20);
  await registry.removeConfiguration(id);
  await fails(registry.getConfiguration(id));
});

test('configurations: one id cannot be used twice', async (t) => {
  const id = await configuration(t, { targetCondition: "tags.none = 'x'", content: { deviceContent: { 'properties.desired.a': 1 } } });
  await fails(registry.addConfiguration({ id, targetCondition: '*', content: { deviceContent: { 'properties.desired.a': 1 } }, priority: 1 }));
});

test('configurations: a stale etag is refused', async (t) => {
  const id = await configuration(t, { targetCondition: "tags.none = 'x'", content: { deviceContent: { 'properties.desired.a': 1 } } });
  const { responseBody: old } = await registry.getConfiguration(id);
  await registry.updateConfiguration({ ...old, priority: 11 });
  await fails(registry.updateConfiguration({ ...old, priority: 12 }), 'InvalidEtagError');
});

test('configurations: desired properties come to the devices of the condition', async (t) => {
  const d = await device(t);
  const other = await device(t);
  const mark = name('target');
  await registry.updateTwin(d.id, { tags: { mark } }, '*');
  await configuration(t, { targetCondition: `tags.mark = '${mark}'`, content: { deviceContent: { 'properties.desired.fan': { speed: 3 } } } });
  await settled(() => registry.getTwin(d.id), (twin) => twin.properties.desired.fan?.speed === 3);
  assert.equal((await registry.getTwin(other.id)).responseBody.properties.desired.fan, undefined);
});

test('configurations: a device that comes into the condition gets it', async (t) => {
  const d = await device(t);
  const mark = name('target');
  await configuration(t, { targetCondition: `tags.mark = '${mark}'`, content: { deviceContent: { 'properties.desired.fan': { speed: 4 } } } });
  await registry.updateTwin(d.id, { tags: { mark } }, '*');
  await settled(() => registry.getTwin(d.id), (twin) => twin.properties.desired.fan?.speed === 4);
});

test('configurations: the higher priority wins', async (t) => {
  const d = await device(t);
  const mark = name('target');
  await registry.updateTwin(d.id, { tags: { mark } }, '*');
  await configuration(t, { targetCondition: `tags.mark = '${mark}'`, priority: 5, content: { deviceContent: { 'properties.desired.level': { v: 1 } } } });
  await settled(() => registry.getTwin(d.id), (twin) => twin.properties.desired.level?.v === 1);
  await configuration(t, { targetCondition: `tags.mark = '${mark}'`, priority: 50, content: { deviceContent: { 'properties.desired.level': { v: 2 } } } });
  await settled(() => registry.getTwin(d.id), (twin) => twin.properties.desired.level?.v === 2);
});

test('configurations: modules by their own condition', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const mark = name('target');
  await registry.updateModuleTwin(d.id, m.id, { tags: { mark } }, '*');
  await configuration(t, { targetCondition: `from devices.modules where tags.mark = '${mark}'`, content: { moduleContent: { 'properties.desired.setpoint': { c: 4 } } } });
  await settled(() => registry.getModuleTwin(d.id, m.id), (twin) => twin.properties.desired.setpoint?.c === 4);
});

test('configurations: metrics count', async (t) => {
  const d = await device(t);
  const mark = name('target');
  await registry.updateTwin(d.id, { tags: { mark } }, '*');
  const id = await configuration(t, {
    targetCondition: `tags.mark = '${mark}'`, content: { deviceContent: { 'properties.desired.fan': { speed: 3 } } },
    metrics: { queries: { marked: `SELECT deviceId FROM devices WHERE tags.mark = '${mark}'` } },
  });
  const now = await settled(() => registry.getConfiguration(id), (c) => c.systemMetrics?.results?.appliedCount === 1);
  assert.equal(now.systemMetrics.results.targetedCount, 1);
});

test('configurations: content is applied to one IoT Edge device at once', async (t) => {
  const d = await device(t, { capabilities: { iotEdge: true } });
  await registry.applyConfigurationContentOnDevice(d.id, {
    modulesContent: { $edgeAgent: { 'properties.desired': { schemaVersion: '1.1', modules: {} } }, $edgeHub: { 'properties.desired': { schemaVersion: '1.1' } } },
  });
  const { responseBody: twin } = await registry.getModuleTwin(d.id, '$edgeAgent');
  assert.equal(twin.properties.desired.schemaVersion, '1.1');
});

test('configurations: a condition that is none is refused', async () => {
  await fails(registry.addConfiguration({ id: name('conf').toLowerCase(), targetCondition: 'WHERE WHERE', content: { deviceContent: { 'properties.desired.a': 1 } }, priority: 1 }));
});

test('configurations: the test of a condition says what is wrong', async () => {
  const got = await rest('POST', '/configurations/testQueries', { body: { targetCondition: "tags.x = '1'", customMetricQueries: { bad: 'SELECT FROM' } } });
  assert.equal(got.status, 200);
  assert.ok(got.body.customMetricQueryErrors?.bad, JSON.stringify(got.body));
});
