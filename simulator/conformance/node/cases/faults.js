'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, service, device, module: addModule, open, event, count, rest, fails, listen, once, report, Message } = require('../hub');

// rule adds a fault rule that goes with the case.
async function rule(t, r) {
  const id = r.id ?? `${r.who}:${r.on}`;
  const got = await rest('POST', '/_sim/faults', { body: { id, ...r } });
  assert.equal(got.status, 204, JSON.stringify(got.body));
  t.defer(() => rest('DELETE', `/_sim/faults/${encodeURIComponent(id)}`));
  return async () => (await rest('GET', '/_sim/faults')).body.find((f) => f.id === id);
}

// order is the message by which the SDKs' own end-to-end tests make a hub break their connection.
function order(kind, reason, delay, duration) {
  const m = new Message('order');
  m.properties.add('AzIoTHub_FaultOperationType', kind);
  m.properties.add('AzIoTHub_FaultOperationCloseReason', reason);
  m.properties.add('AzIoTHub_FaultOperationDelayInSecs', String(delay));
  if (duration) m.properties.add('AzIoTHub_FaultOperationDurationInSecs', String(duration));
  return m;
}

// reconnected waits for the second connection of a device.
function reconnected(who) {
  let n = 0;
  return event(who, 'connected', () => ++n === 2, 30_000);
}

for (const kind of ['KillTcp', 'ShutDownMqtt']) {
  test(`faults: the SDK reconnects after ${kind} and is whole again`, async (t) => {
    const d = await device(t);
    const client = await open(t, d);
    client.onDeviceMethod('echo', (request, response) => response.send(200, request.payload));
    const twin = await listen(client);
    await client.sendEvent(order(kind, 'boom', 1));
    await reconnected(d);
    await client.sendEvent(new Message('"after"'));
    await event(d, 'telemetry', (e) => e.body === 'after');
    const got = once(twin, 'properties.desired', (p) => p.after !== undefined);
    await registry.updateTwin(d.id, { properties: { desired: { after: kind } } }, '*');
    assert.equal((await got).after, kind);
    const { result } = await service.invokeDeviceMethod(d.id, { methodName: 'echo', payload: 7, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10 });
    assert.equal(result.payload, 7);
  });
}

test('faults: KillTcp with a duration keeps the device away for that time', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  client.onDeviceMethod('echo', (request, response) => response.send(200, request.payload)); // who has nothing to hear does not reconnect
  await client.sendEvent(order('KillTcp', 'boom', 0, 2));
  await event(d, 'disconnected');
  const down = await event(d, 'fault', (e) => e.detail.startsWith('connect: kick'));
  const up = await reconnected(d);
  assert.ok(Date.parse(up.at) >= Date.parse(down.at));
});

for (const kind of ['InvokeThrottling', 'InvokeMaxMessageQuota', 'InvokeAuthError']) {
  test(`faults: ${kind} leaves messages without acknowledgement, and then it is over`, async (t) => {
    const d = await device(t);
    const client = await open(t, d);
    await client.sendEvent(order(kind, 'twenty', 0, 3));
    let acknowledged = false;
    client.sendEvent(new Message('"lost"')).then(() => { acknowledged = true; }, () => {});
    await event(d, 'fault', (e) => e.detail.startsWith('publish: drop'));
    for (;;) {
      const rules = (await rest('GET', '/_sim/faults')).body.filter((r) => r.who === d.id);
      if (rules.length === 0) break;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    assert.equal(acknowledged, false);
    await client.sendEvent(new Message('"after"'));
    await event(d, 'telemetry', (e) => e.body === 'after');
    assert.equal(count(d, 'disconnected'), 0);
    assert.equal(count(d, 'telemetry'), 2); // the order and what came after
    await client.sendEvent(order('KillTcp', 'boom', 0));
    await event(d, 'telemetry', (e) => e.body === 'lost'); // sent again by the SDK over its next connection
  });
}

test('faults: a kicked publish is sent again and arrives', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const state = await rule(t, { on: 'publish', who: d.id, times: 1, do: 'kick' });
  await client.sendEvent(new Message('"once"'));
  await event(d, 'telemetry', (e) => e.body === 'once');
  assert.equal((await state()).acted, 1);
  assert.equal(count(d, 'telemetry'), 1);
});

test('faults: a message whose acknowledgement is lost with the connection arrives twice', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  await rule(t, { on: 'puback', who: d.id, times: 1, do: 'kick' });
  await client.sendEvent(new Message('"twice"'));
  let n = 0;
  await event(d, 'telemetry', (e) => e.body === 'twice' && ++n === 2);
});

test('faults: a refused first connect is UnauthorizedError, the next one works', async (t) => {
  const d = await device(t);
  await rule(t, { on: 'connect', who: d.id, times: 1, do: 'refuse' });
  await fails(open(t, d), 'UnauthorizedError');
  await open(t, d);
});

test('faults: a delayed acknowledgement comes late', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  await rule(t, { on: 'puback', who: d.id, times: 1, do: 'delay', delay: '700ms' });
  const start = Date.now();
  await client.sendEvent(new Message('1'));
  assert.ok(Date.now() - start >= 690, `after ${Date.now() - start} ms`);
});

test('faults: a throttled reported patch fails with 429 and the next one works', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const twin = await client.getTwin();
  await rule(t, { on: 'report', who: d.id, times: 1, do: 'throttle' });
  await fails(report(twin, { a: 1 }));
  await report(twin, { a: 2 });
  const { responseBody: seen } = await registry.getTwin(d.id);
  assert.equal(seen.properties.reported.a, 2);
});

test('faults: a lost desired change is seen by reading the twin', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const twin = await listen(client);
  await rule(t, { on: 'desired', who: d.id, times: 1, do: 'drop' });
  await registry.updateTwin(d.id, { properties: { desired: { lost: 1 } } }, '*');
  const got = once(twin, 'properties.desired', (p) => p.seen === 2);
  await registry.updateTwin(d.id, { properties: { desired: { seen: 2 } } }, '*');
  await got;
  await new Promise((resolve, reject) => twin.get((e) => (e ? reject(e) : resolve())));
  assert.equal(twin.properties.desired.lost, 1);
});

test('faults: a frozen connection does not hinder its neighbour', async (t) => {
  const d = await device(t);
  const a = await addModule(t, d, 'a');
  const b = await addModule(t, d, 'b');
  const [ca, cb] = await Promise.all([open(t, a), open(t, b)]);
  await rule(t, { on: 'publish', who: `${d.id}/a`, do: 'freeze' });
  ca.sendEvent(new Message('"stuck"')).catch(() => {});
  await event(a, 'fault');
  await cb.sendEvent(new Message('"free"'));
  await event(b, 'telemetry');
  const { responseBody: seen } = await registry.getModule(d.id, 'a');
  assert.equal(seen.connectionState, 'Connected');
  assert.equal(count(a, 'telemetry'), 0);
  await registry.removeModule(d.id, 'a'); // the SDK's close waits for the acknowledgement that it does not get
  await event(a, 'disconnected');
});

test('faults: the service API throttles with 429 and without Retry-After', async (t) => {
  const d = await device(t);
  await rule(t, { on: 'rest', who: d.id, times: 2, do: 'throttle' });
  await fails(registry.get(d.id), 'ThrottlingError');
  const got = await rest('GET', `/devices/${d.id}`);
  assert.equal(got.status, 429);
  assert.equal(got.headers['iothub-errorcode'], 'ThrottlingException');
  assert.equal(got.headers['retry-after'], undefined);
  await registry.get(d.id);
});

test('faults: the service API is unavailable for one call', async (t) => {
  const d = await device(t);
  await rule(t, { on: 'rest', who: d.id, times: 1, do: 'refuse' });
  await fails(registry.get(d.id), 'ServiceUnavailableError');
  await registry.get(d.id);
});

test('faults: a connection of the service API that breaks off', async (t) => {
  const d = await device(t);
  await rule(t, { on: 'rest', who: d.id, times: 1, do: 'kick' });
  await fails(registry.get(d.id));
  await registry.get(d.id);
});

test('faults: After lets events pass, and the counters tell', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const state = await rule(t, { on: 'puback', who: d.id, after: 2, times: 1, do: 'delay', delay: '1ms' });
  for (let n = 0; n < 4; n++) await client.sendEvent(new Message(String(n)));
  const { passed, acted } = await state();
  assert.deepEqual({ passed, acted }, { passed: 2, acted: 1 });
});
