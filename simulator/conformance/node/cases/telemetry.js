'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { device, module: addModule, open, event, count, fails, guid, Message, Mqtt, ways } = require('../hub');

for (const [way, transport] of ways) {
  for (const kind of ['device', 'module']) {
    test(`telemetry: of a ${kind} (${way})`, async (t) => {
      const d = await device(t);
      const who = kind === 'module' ? await addModule(t, d) : d;
      const client = await open(t, who, transport);
      await client.sendEvent(new Message(JSON.stringify({ temperature: 21.5 })));
      const e = await event(who, 'telemetry');
      assert.deepEqual(e.body, { temperature: 21.5 });
    });
  }
}

test('telemetry: application properties come through', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const m = new Message('1');
  const properties = { alarm: 'true', 'a key': 'a value', slash: 'a/b', amp: 'a&b=c', percent: '100 %', umlaut: 'grün', plus: '1+1' };
  for (const [k, v] of Object.entries(properties)) m.properties.add(k, v);
  await client.sendEvent(m);
  const e = await event(d, 'telemetry');
  assert.deepEqual(e.properties, properties);
});

test('telemetry: system properties come through', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const m = new Message(JSON.stringify({ a: 1 }));
  m.messageId = guid();
  m.correlationId = 'corr-1';
  m.userId = 'user-1';
  m.contentType = 'application/json';
  m.contentEncoding = 'utf-8';
  await client.sendEvent(m);
  const e = await event(d, 'telemetry');
  assert.equal(e.system['message-id'], m.messageId);
  assert.equal(e.system['correlation-id'], 'corr-1');
  assert.equal(e.system['user-id'], 'user-1');
  assert.equal(e.system['content-type'], 'application/json');
  assert.equal(e.system['content-encoding'], 'utf-8');
});

test('telemetry: the hub stamps who has sent it and when', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  for (const [who, scope] of [[d, 'device'], [m, 'module']]) {
    const client = await open(t, who);
    const before = Date.now();
    await client.sendEvent(new Message('1'));
    const { system } = await event(who, 'telemetry');
    assert.equal(system['iothub-connection-device-id'], d.id);
    assert.equal(system['iothub-connection-module-id'], scope === 'module' ? m.id : undefined);
    assert.equal(system['iothub-connection-auth-generation-id'], who.identity.generationId);
    assert.deepEqual(JSON.parse(system['iothub-connection-auth-method']),
      { scope, type: 'sas', issuer: 'iothub', acceptingIpFilterRule: null });
    assert.equal(system['iothub-message-source'], 'Telemetry');
    const at = Date.parse(system['iothub-enqueuedtime']);
    assert.ok(at >= before - 1000 && at <= Date.now() + 1000, system['iothub-enqueuedtime']);
  }
});

test('telemetry: a batch arrives whole and in order', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  for (let n = 0; n < 20; n++) await client.sendEvent(new Message(JSON.stringify({ n })));
  for (let n = 0; n < 20; n++) await event(d, 'telemetry', (e) => e.body.n === n);
  assert.equal(count(d, 'telemetry'), 20);
});

test('telemetry: sendEventBatch is not offered over MQTT', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  await fails(client.sendEventBatch([new Message('1')]), 'NotImplementedError');
});

test('telemetry: bytes that are no JSON', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const bytes = Buffer.from([0, 1, 2, 255, 254]);
  await client.sendEvent(new Message(bytes));
  const e = await event(d, 'telemetry');
  assert.equal(e.base64, bytes.toString('base64'));
});

test('telemetry: an empty body', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const m = new Message('');
  m.properties.add('heartbeat', 'yes');
  await client.sendEvent(m);
  const e = await event(d, 'telemetry');
  assert.equal(e.properties.heartbeat, 'yes');
});

test('telemetry: 255 KiB are taken', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  await client.sendEvent(new Message(JSON.stringify('x'.repeat(255 * 1024))));
  const e = await event(d, 'telemetry');
  assert.equal(e.body.length, 255 * 1024);
});

test('telemetry: an output event of a module names its output', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const client = await open(t, m);
  await client.sendOutputEvent('climate', new Message(JSON.stringify({ t: 4 })));
  const e = await event(m, 'telemetry');
  assert.deepEqual(e.body, { t: 4 });
  assert.ok(Object.values(e.system).includes('climate'), JSON.stringify(e.system));
});

test('telemetry: fifty messages in flight are all acknowledged', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  await Promise.all(Array.from({ length: 50 }, (_, n) => client.sendEvent(new Message(JSON.stringify({ n })))));
  const seen = new Set();
  for (let n = 0; n < 50; n++) seen.add((await event(d, 'telemetry', (e) => e.body.n === n)).body.n);
  assert.equal(seen.size, 50);
});
