'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { SharedAccessKeyAuthenticationProvider } = require('azure-iot-device');
const { test } = require('../suite');
const {
  registry, service, host, name, sas, device, module: addModule, open, keep, event, count, once, listen, fails, rest, owner, report,
  Client, ModuleClient, Message, Mqtt, ways, iothub,
} = require('../hub');

const randomKey = () => crypto.randomBytes(32).toString('base64');

for (const [way, transport] of ways) {
  test(`credentials: a wrong key is UnauthorizedError (${way})`, async (t) => {
    const d = await device(t);
    await fails(open(t, { ...d, cs: d.cs.replace(/SharedAccessKey=.*/, `SharedAccessKey=${randomKey()}`) }, transport), way === 'MQTT' ? 'UnauthorizedError' : undefined);
    assert.equal(count(d, 'connected'), 0);
  });
}

test('credentials: the secondary key opens too', async (t) => {
  const d = await device(t);
  await open(t, { ...d, cs: d.cs.replace(d.key, d.identity.authentication.symmetricKey.secondaryKey) });
  await event(d, 'connected');
});

test('credentials: an unknown device is refused', async (t) => {
  await fails(open(t, { id: 'nobody', cs: `HostName=${host};DeviceId=${name('nobody')};SharedAccessKey=${randomKey()}` }), 'UnauthorizedError');
});

test('credentials: a disabled device is refused, and let in when enabled', async (t) => {
  const d = await device(t, { status: 'disabled' });
  await fails(open(t, d), 'UnauthorizedError');
  await registry.update({ ...d.identity, status: 'enabled' });
  await open(t, d);
});

test('credentials: disabling a device ends its connection', async (t) => {
  const d = await device(t);
  await open(t, d);
  await event(d, 'connected');
  await registry.update({ ...d.identity, status: 'disabled' });
  await event(d, 'disconnected');
});

test('credentials: disabling a device refuses its modules', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  await registry.update({ ...d.identity, status: 'disabled' });
  await fails(open(t, m), 'UnauthorizedError');
});

test('credentials: deleting a device ends its connection', async (t) => {
  const d = await device(t);
  await open(t, d);
  await registry.delete(d.id);
  await event(d, 'disconnected');
});

test('credentials: removing a module ends its connection alone', async (t) => {
  const d = await device(t);
  const a = await addModule(t, d, 'a');
  const b = await addModule(t, d, 'b');
  const [, cb] = await Promise.all([open(t, a), open(t, b)]);
  await registry.removeModule(d.id, 'a');
  await event(a, 'disconnected');
  await cb.sendEvent(new Message('1'));
  assert.equal(count(b, 'disconnected'), 0);
});

test('credentials: a token that the user made opens', async (t) => {
  const d = await device(t);
  const token = sas(d.cs, `${host}/devices/${d.id}`);
  const client = keep(t, Client.fromSharedAccessSignature(token, Mqtt));
  await client.open();
});

test('credentials: an expired token is refused', async (t) => {
  const d = await device(t);
  const client = keep(t, Client.fromSharedAccessSignature(sas(d.cs, `${host}/devices/${d.id}`, -3600), Mqtt));
  await fails(client.open(), 'UnauthorizedError');
});

test("credentials: a token for another device's resource is refused", async (t) => {
  const d = await device(t);
  const other = await device(t);
  const token = sas(d.cs, `${host}/devices/${other.id}`);
  const client = keep(t, Client.fromSharedAccessSignature(token, Mqtt));
  await fails(client.open(), 'UnauthorizedError');
});

test('credentials: a policy without rights is UnauthorizedError', async (t) => {
  const d = await device(t);
  const wrong = owner.replace(/SharedAccessKey=.*/, `SharedAccessKey=${randomKey()}`);
  await fails(iothub.Registry.fromConnectionString(wrong).get(d.id), 'UnauthorizedError');
  await fails(iothub.Client.fromConnectionString(wrong).invokeDeviceMethod(d.id, { methodName: 'x', responseTimeoutInSeconds: 5 }), 'UnauthorizedError');
});

test('credentials: a service token that has run out is UnauthorizedError', async (t) => {
  const d = await device(t);
  const old = iothub.Registry.fromSharedAccessSignature(sas(owner, host, -3600));
  await fails(old.get(d.id), 'UnauthorizedError');
});

for (const [way, transport] of ways) {
  test(`renewal: methods and desired properties survive the token's renewal (${way})`, async (t) => {
    const d = await device(t);
    const client = keep(t, Client.fromAuthenticationProvider(SharedAccessKeyAuthenticationProvider.fromConnectionString(d.cs, 12, 8), transport));
    await client.open();
    client.onDeviceMethod('echo', (request, response) => response.send(200, request.payload));
    const twin = await listen(client);
    const got = once(twin, 'properties.desired', (p) => p.after !== undefined, 30_000);
    let connects = 0;
    await event(d, 'connected', () => ++connects === 2); // 3.1.1 renews by connecting anew
    await registry.updateTwin(d.id, { properties: { desired: { after: 'renewal' } } }, '*');
    assert.equal((await got).after, 'renewal');
    const { result } = await service.invokeDeviceMethod(d.id, { methodName: 'echo', payload: 1, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10 });
    assert.equal(result.payload, 1);
    await client.sendEvent(new Message('1'));
    await event(d, 'telemetry');
  });
}

test('renewal: a module survives it too', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const client = keep(t, ModuleClient.fromAuthenticationProvider(SharedAccessKeyAuthenticationProvider.fromConnectionString(m.cs, 12, 8), Mqtt));
  await client.open();
  client.onMethod('echo', (request, response) => response.send(200, request.payload));
  let connects = 0;
  await event(m, 'connected', () => ++connects === 2);
  const { result } = await service.invokeDeviceMethod(d.id, m.id, { methodName: 'echo', payload: 'after', responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10 });
  assert.equal(result.payload, 'after');
});

test('renewal: updateSharedAccessSignature keeps the client connected', async (t) => {
  const d = await device(t);
  const resource = `${host}/devices/${d.id}`;
  const client = keep(t, Client.fromSharedAccessSignature(sas(d.cs, resource), Mqtt));
  await client.open();
  await client.updateSharedAccessSignature(sas(d.cs, resource, 7200));
  await client.sendEvent(new Message('1'));
  await event(d, 'telemetry');
});

test('connection: a second connection of a device takes over', async (t) => {
  const d = await device(t);
  const first = await open(t, d);
  first.setRetryPolicy({ shouldRetry: () => false, nextRetryTimeout: () => 0 });
  const gone = once(first, 'disconnect');
  const second = await open(t, d);
  await gone;
  await second.sendEvent(new Message('1'));
  await event(d, 'telemetry');
});

test('connection: connectionState follows', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const { responseBody: up } = await registry.get(d.id);
  assert.equal(up.connectionState, 'Connected');
  await client.close();
  await event(d, 'disconnected');
  const { responseBody: down } = await registry.get(d.id);
  assert.equal(down.connectionState, 'Disconnected');
  assert.notEqual(down.lastActivityTime, '0001-01-01T00:00:00');
});

test('connection: service statistics count the connected', async (t) => {
  const d = await device(t);
  await open(t, d);
  const { body: got } = await rest('GET', '/statistics/service');
  assert.ok(got.connectedDeviceCount >= 1);
});

test('connection: a client opens and closes three times', async (t) => {
  const d = await device(t);
  for (let n = 0; n < 3; n++) {
    const client = await open(t, d);
    await client.sendEvent(new Message(JSON.stringify({ n })));
    await client.close();
  }
  for (let n = 0; n < 3; n++) await event(d, 'telemetry', (e) => e.body.n === n);
});

test('connection: reported properties and telemetry in one connection keep their order', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  const twin = await client.getTwin();
  await Promise.all([report(twin, { a: 1 }), client.sendEvent(new Message('1')), report(twin, { b: 2 })]);
  const { responseBody: seen } = await registry.getTwin(d.id);
  assert.equal(seen.properties.reported.a, 1);
  assert.equal(seen.properties.reported.b, 2);
});
