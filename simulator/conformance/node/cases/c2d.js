'use strict';

// Cloud-to-device messages. The service SDK for Node.js sends them by AMQP alone, which this hub does not speak; they are sent by
// HTTPS, as Azure/azure-iot-explorer does it.

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, module: addModule, open, event, count, fails, rest, once, guid, Http, Message, ways } = require('../hub');

async function send(d, body, headers = {}) {
  const path = d.device ? `/devices/${d.device}/modules/${d.id}/messages/deviceBound` : `/devices/${d.id}/messages/deviceBound`;
  const got = await rest('POST', path, { body, headers: { 'Content-Type': 'text/plain', ...headers } });
  assert.ok(got.status === 201 || got.status === 204, `${got.status} ${JSON.stringify(got.body)}`);
}

// polling opens an HTTP client that asks each second.
async function polling(t, d) {
  const client = await open(t, d, Http);
  await client.setOptions({ http: { receivePolicy: { interval: 1 } } });
  return client;
}

for (const [way, transport] of ways) {
  test(`C2D: a message arrives with its properties (${way})`, async (t) => {
    const d = await device(t);
    const client = await open(t, d, transport);
    const got = once(client, 'message');
    const id = guid();
    await send(d, 'hello', { 'iothub-messageid': id, 'iothub-correlationid': 'c-1', 'iothub-app-level': 'high/low & more' });
    const m = await got;
    assert.equal(m.data.toString(), 'hello');
    assert.equal(m.messageId, id);
    assert.equal(m.correlationId, 'c-1');
    assert.equal(m.properties.propertyList.find((p) => p.key === 'level').value, 'high/low & more');
    await client.complete(m);
  });

  test(`C2D: what was sent while away waits (${way})`, async (t) => {
    const d = await device(t);
    for (const n of [1, 2, 3]) await send(d, String(n));
    const client = await open(t, d, transport);
    const got = [];
    const third = once(client, 'message', (m) => { got.push(m.data.toString()); return got.length === 3; });
    await third;
    assert.deepEqual(got, ['1', '2', '3']);
  });
}

test('C2D: a message arrives by HTTPS and is completed', async (t) => {
  const d = await device(t);
  await send(d, 'by poll', { 'iothub-app-a': 'b' });
  const client = await polling(t, d);
  const m = await once(client, 'message');
  assert.equal(m.data.toString(), 'by poll');
  await client.complete(m);
  const { responseBody: now } = await registry.get(d.id);
  assert.equal(now.cloudToDeviceMessageCount, 0);
});

test('C2D: an abandoned message comes again', async (t) => {
  const d = await device(t);
  await send(d, 'twice');
  const client = await polling(t, d);
  await client.abandon(await once(client, 'message'));
  const again = await once(client, 'message');
  assert.equal(again.data.toString(), 'twice');
  await client.complete(again);
});

test('C2D: a rejected message is gone, and the feedback says so', async (t) => {
  const d = await device(t);
  const id = guid();
  await send(d, 'no', { 'iothub-ack': 'full', 'iothub-messageid': id });
  const client = await polling(t, d);
  await client.reject(await once(client, 'message'));
  const { responseBody: now } = await registry.get(d.id);
  assert.equal(now.cloudToDeviceMessageCount, 0);
  await event(d, 'c2d', (e) => /reject/i.test(e.detail));
});

test('C2D: the count of waiting messages is in the identity', async (t) => {
  const d = await device(t);
  for (let n = 0; n < 3; n++) await send(d, 'x');
  const { responseBody: now } = await registry.get(d.id);
  assert.equal(now.cloudToDeviceMessageCount, 3);
});

test('C2D: the fifty-first message is refused', async (t) => {
  const d = await device(t);
  for (let n = 0; n < 50; n++) await send(d, 'x');
  const got = await rest('POST', `/devices/${d.id}/messages/deviceBound`, { body: 'x' });
  assert.equal(got.status, 403);
  assert.equal(got.headers['iothub-errorcode'], 'DeviceMaximumQueueDepthExceeded');
  const purged = await rest('DELETE', `/devices/${d.id}/commands`);
  assert.equal(purged.status, 200);
  assert.equal(purged.body.totalMessagesPurged, 50);
});

test('C2D: to an unknown device is refused', async () => {
  const got = await rest('POST', `/devices/${name('nobody')}/messages/deviceBound`, { body: 'x' });
  assert.equal(got.status, 404);
  assert.equal(got.headers['iothub-errorcode'], 'DeviceNotFound');
});

test('C2D: a lost connection before the acknowledgement brings the message again', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  let n = 0;
  const second = once(client, 'message', () => ++n === 2, 30_000);
  const got = await rest('POST', '/_sim/faults', { body: { id: d.id, on: 'c2d', who: d.id, times: 1, do: 'kick' } });
  assert.equal(got.status, 204);
  t.defer(() => rest('DELETE', `/_sim/faults/${d.id}`));
  await client.sendEvent(new Message('1'));
  await send(d, 'first');
  await send(d, 'second');
  await second;
});

test('HTTPS device: telemetry with properties', async (t) => {
  const d = await device(t);
  const client = await open(t, d, Http);
  const m = new Message(JSON.stringify({ t: 21 }));
  m.messageId = guid();
  m.contentType = 'application/json';
  m.properties.add('alarm', 'yes');
  await client.sendEvent(m);
  const e = await event(d, 'telemetry');
  assert.deepEqual(e.body, { t: 21 });
  assert.equal(e.system['message-id'], m.messageId);
  assert.equal(e.properties.alarm, 'yes');
});

test('HTTPS device: a batch arrives whole', async (t) => {
  const d = await device(t);
  const client = await open(t, d, Http);
  await client.sendEventBatch(Array.from({ length: 10 }, (_, n) => {
    const m = new Message(JSON.stringify({ n }));
    m.properties.add('n', String(n));
    return m;
  }));
  for (let n = 0; n < 10; n++) await event(d, 'telemetry', (e) => e.body?.n === n && e.properties.n === String(n));
  assert.equal(count(d, 'telemetry'), 10);
});

test('HTTPS device: a wrong key is refused', async (t) => {
  const d = await device(t);
  const other = await device(t);
  const client = await open(t, { ...d, cs: d.cs.replace(d.key, other.key) }, Http);
  client.setRetryPolicy({ shouldRetry: () => false, nextRetryTimeout: () => 0 });
  await fails(client.sendEvent(new Message('1')), 'UnauthorizedError');
});

test('HTTPS device: twins and methods are not offered', async (t) => {
  const d = await device(t);
  const client = await open(t, d, Http);
  await fails(client.getTwin());
});

test('HTTPS device: a fault that its own message orders is the answer to it', async (t) => {
  const d = await device(t);
  const client = await open(t, d, Http);
  client.setRetryPolicy({ shouldRetry: () => false, nextRetryTimeout: () => 0 });
  const m = new Message('1');
  m.properties.add('AzIoTHub_FaultOperationType', 'InvokeThrottling');
  m.properties.add('AzIoTHub_FaultOperationDurationInSecs', '5');
  const e = await fails(client.sendEvent(m));
  assert.match(e.message, /Too Many Requests/);
  assert.equal(count(d, 'telemetry'), 0);
});

test('C2D: a module has a queue of its own', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  await send(m, 'for the module');
  const { responseBody: now } = await registry.getModule(d.id, m.id);
  assert.equal(now.cloudToDeviceMessageCount, 1);
  assert.equal((await registry.get(d.id)).responseBody.cloudToDeviceMessageCount, 0);
});
