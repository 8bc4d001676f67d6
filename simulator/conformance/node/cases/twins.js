'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, module: addModule, fails, rest, open, once, listen, report, Mqtt, ways } = require('../hub');

test('twins, service side: a new twin is empty at version 1', async (t) => {
  const d = await device(t);
  const { responseBody: twin } = await registry.getTwin(d.id);
  assert.equal(twin.deviceId, d.id);
  assert.equal(twin.version, 2);
  assert.equal(twin.properties.desired.$version, 1);
  assert.equal(twin.properties.reported.$version, 1);
});

test('twins, service side: update merges, and null removes', async (t) => {
  const d = await device(t);
  const { responseBody: twin } = await registry.getTwin(d.id);
  const { result: one } = await twin.update({ properties: { desired: { a: { b: 1, c: 2 }, x: true } } });
  assert.equal(one.properties.desired.$version, 2);
  const { result: two } = await one.update({ properties: { desired: { a: { b: null }, y: 'z' } } });
  const { $metadata, $version, ...desired } = two.properties.desired;
  assert.deepEqual(desired, { a: { c: 2 }, x: true, y: 'z' });
  assert.equal($version, 3);
  assert.ok($metadata.$lastUpdated && $metadata.y.$lastUpdatedVersion === 3);
});

test('twins, service side: tags are no properties', async (t) => {
  const d = await device(t);
  await registry.updateTwin(d.id, { tags: { site: { city: 'Kiel' } } }, '*');
  const { responseBody: twin } = await registry.getTwin(d.id);
  assert.deepEqual(twin.tags, { site: { city: 'Kiel' } });
  assert.equal(twin.properties.desired.$version, 1);
});

test('twins, service side: a stale etag is InvalidEtagError', async (t) => {
  const d = await device(t);
  const { responseBody: old } = await registry.getTwin(d.id);
  await registry.updateTwin(d.id, { tags: { a: 1 } }, old.etag);
  await fails(registry.updateTwin(d.id, { tags: { a: 2 } }, old.etag), 'InvalidEtagError');
});

test('twins, service side: the twin of an unknown device is DeviceNotFoundError', async () => {
  await fails(registry.getTwin(name('nobody')), 'DeviceNotFoundError');
});

test('twins, service side: module twins are read and updated', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const { responseBody: twin } = await registry.getModuleTwin(d.id, m.id);
  assert.equal(twin.moduleId, m.id);
  const { responseBody: now } = await registry.updateModuleTwin(d.id, m.id, { properties: { desired: { interval: 5 } }, tags: { dept: 'cooling' } }, twin.etag);
  assert.equal(now.properties.desired.interval, 5);
  assert.equal(now.tags.dept, 'cooling');
});

test('twins, service side: PUT replaces desired and tags', async (t) => {
  const d = await device(t);
  await registry.updateTwin(d.id, { tags: { old: 1 }, properties: { desired: { old: 1 } } }, '*');
  const got = await rest('PUT', `/twins/${d.id}`, { headers: { 'If-Match': '*' }, body: { tags: { new: 2 }, properties: { desired: { new: 2 } } } });
  assert.equal(got.status, 200);
  assert.deepEqual(got.body.tags, { new: 2 });
  assert.equal(got.body.properties.desired.old, undefined);
  assert.equal(got.body.properties.desired.new, 2);
});

test('twins, service side: a value of more than 4 KiB is refused', async (t) => {
  const d = await device(t);
  await fails(registry.updateTwin(d.id, { properties: { desired: { big: 'x'.repeat(4097) } } }, '*'), 'ArgumentError');
});

test('twins, service side: a key with a dot is refused', async (t) => {
  const d = await device(t);
  await fails(registry.updateTwin(d.id, { properties: { desired: { 'a.b': 1 } } }, '*'), 'ArgumentError');
});

test('twins, service side: desired of more than 32 KiB is refused', async (t) => {
  const d = await device(t);
  const desired = {};
  for (let i = 0; i < 9; i++) desired[`k${i}`] = 'x'.repeat(4000);
  const got = await rest('PATCH', `/twins/${d.id}`, { body: { properties: { desired } } });
  assert.ok(got.status === 400 || got.status === 413, `status ${got.status}`);
});

test('twins, service side: reported cannot be written', async (t) => {
  const d = await device(t);
  await registry.updateTwin(d.id, { properties: { desired: { a: 1 }, reported: { fake: 1 } } }, '*').catch(() => {});
  const { responseBody: twin } = await registry.getTwin(d.id);
  assert.equal(twin.properties.reported.fake, undefined);
});

for (const [way, transport] of ways) {
  test(`twins, device side: getTwin shows desired and reported (${way})`, async (t) => {
    const d = await device(t);
    await registry.updateTwin(d.id, { properties: { desired: { interval: 7 } } }, '*');
    const client = await open(t, d, transport);
    const twin = await client.getTwin();
    assert.equal(twin.properties.desired.interval, 7);
    assert.equal(twin.properties.desired.$version, 2);
    assert.equal(twin.properties.reported.$version, 1);
  });

  test(`twins, device side: reported properties reach the service (${way})`, async (t) => {
    const d = await device(t);
    const client = await open(t, d, transport);
    const twin = await client.getTwin();
    await report(twin, { firmware: { version: '1.2.3', slot: 'A' } });
    await report(twin, { firmware: { slot: null } });
    const { responseBody: seen } = await registry.getTwin(d.id);
    assert.deepEqual(seen.properties.reported.firmware, { version: '1.2.3' });
    assert.equal(seen.properties.reported.$version, 3);
  });

  test(`twins, device side: a desired change arrives (${way})`, async (t) => {
    const d = await device(t);
    const client = await open(t, d, transport);
    const twin = await listen(client);
    const got = once(twin, 'properties.desired', (p) => p.interval !== undefined);
    await registry.updateTwin(d.id, { properties: { desired: { interval: 9 } } }, '*');
    const patch = await got;
    assert.equal(patch.interval, 9);
  });
}

test('twins, device side: a desired change arrives at a module', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const client = await open(t, m);
  const twin = await listen(client);
  const got = once(twin, 'properties.desired', (p) => p.setpoint !== undefined);
  await registry.updateModuleTwin(d.id, m.id, { properties: { desired: { setpoint: 4 } } }, '*');
  assert.equal((await got).setpoint, 4);
});

test('twins, device side: only the changed keys arrive, with the version', async (t) => {
  const d = await device(t);
  await registry.updateTwin(d.id, { properties: { desired: { a: 1, b: 1 } } }, '*');
  const client = await open(t, d);
  const twin = await listen(client);
  const patches = [];
  twin.on('properties.desired', (p) => patches.push(p));
  const got = once(twin, 'properties.desired', (p) => p.$version === 3);
  await registry.updateTwin(d.id, { properties: { desired: { b: 2, a: null } } }, '*');
  const patch = await got;
  assert.deepEqual(patch, { b: 2, a: null, $version: 3 });
});

test('twins, device side: a nested listener hears its part', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const twin = await listen(client);
  const got = once(twin, 'properties.desired.fan.speed', (v) => v !== undefined);
  await registry.updateTwin(d.id, { properties: { desired: { fan: { speed: 3, mode: 'auto' } } } }, '*');
  assert.equal(await got, 3);
});

test('twins, device side: PUT by the service arrives with nulls for what went', async (t) => {
  const d = await device(t);
  await registry.updateTwin(d.id, { properties: { desired: { old: 1 } } }, '*');
  const client = await open(t, d);
  const twin = await listen(client);
  const got = once(twin, 'properties.desired', (p) => p.new !== undefined);
  await rest('PUT', `/twins/${d.id}`, { headers: { 'If-Match': '*' }, body: { properties: { desired: { new: 2 } } } });
  const patch = await got;
  assert.equal(patch.new, 2);
  assert.equal(patch.old, null);
});

test('twins, device side: a bad reported patch is refused and the connection stays', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const twin = await client.getTwin();
  await fails(report(twin, { big: 'x'.repeat(5000) }));
  await report(twin, { small: 1 });
  const { responseBody: seen } = await registry.getTwin(d.id);
  assert.equal(seen.properties.reported.small, 1);
  assert.equal(seen.properties.reported.big, undefined);
});

test('twins, device side: twenty changes arrive in order', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const twin = await listen(client);
  const versions = [];
  twin.on('properties.desired', (p) => { if (p.n) versions.push(p.$version); });
  const last = once(twin, 'properties.desired', (p) => p.n === 20);
  for (let n = 1; n <= 20; n++) await registry.updateTwin(d.id, { properties: { desired: { n } } }, '*');
  await last;
  assert.deepEqual(versions, Array.from({ length: 20 }, (_, i) => i + 2));
});

test('twins, device side: what changed while away is in the twin after reconnecting', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  await client.getTwin();
  await client.close();
  await registry.updateTwin(d.id, { properties: { desired: { night: true } } }, '*');
  const again = await open(t, d);
  const twin = await again.getTwin();
  assert.equal(twin.properties.desired.night, true);
});
