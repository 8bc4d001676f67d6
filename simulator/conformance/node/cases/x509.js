'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const mqtt = require('mqtt');
const { test } = require('../suite');
const { certificate } = require('../certificate');
const { start } = require('../other');
const { registry, iothub, host, device, name, keep, event, fails, report, once, listen, Client, Message, Http, Mqtt, ways } = require('../hub');

const connectionString = (id, hub = host) => `HostName=${hub};DeviceId=${id};x509=true`;

// show opens a client that proves itself by a certificate.
async function show(t, cs, c, transport = Mqtt) {
  const client = keep(t, Client.fromConnectionString(cs, transport));
  const options = { cert: c.cert, key: c.key };
  if (transport === Http) options.http = { receivePolicy: { manualPolling: true } }; // else it never calls back (azure-iot-device-http 1.14.4)
  await client.setOptions(options);
  await client.open();
  return client;
}

const thumbprints = (primaryThumbprint, secondaryThumbprint) => ({ authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint, secondaryThumbprint } } });

for (const [way, transport] of [...ways, ['HTTPS', Http]]) {
  test(`X.509: a device opens by its thumbprint (${way})`, async (t) => {
    const c = certificate('device');
    const d = await device(t, thumbprints(c.sha1, c.sha1));
    const client = await show(t, connectionString(d.id), c, transport);
    await client.sendEvent(new Message('"by certificate"'));
    assert.equal((await event(d, 'telemetry')).body, 'by certificate');
  });
}

test('X.509: the secondary thumbprint and SHA-256 do too', async (t) => {
  const [a, b] = [certificate('a'), certificate('b')];
  const d = await device(t, thumbprints(a.sha256, b.sha256));
  await show(t, connectionString(d.id), b);
  await event(d, 'connected');
});

test('X.509: twins and desired changes', async (t) => {
  const c = certificate('device');
  const d = await device(t, thumbprints(c.sha1, c.sha1));
  const client = await show(t, connectionString(d.id), c);
  const twin = await listen(client);
  await report(twin, { by: 'certificate' });
  const got = once(twin, 'properties.desired', (p) => p.x !== undefined);
  await registry.updateTwin(d.id, { properties: { desired: { x: 1 } } }, '*');
  assert.equal((await got).x, 1);
});

test('X.509: another certificate is refused', async (t) => {
  const c = certificate('device');
  const d = await device(t, thumbprints(c.sha1, c.sha1));
  await fails(show(t, connectionString(d.id), certificate('device')), 'UnauthorizedError');
});

test('X.509: a certificate that has run out is refused', async (t) => {
  const c = certificate('device', { days: -1 });
  const d = await device(t, thumbprints(c.sha1, c.sha1));
  await fails(show(t, connectionString(d.id), c), 'UnauthorizedError');
});

test('X.509: a device with a key does not open by certificate', async (t) => {
  const d = await device(t);
  await fails(show(t, connectionString(d.id), certificate(d.id)), 'UnauthorizedError');
});

test('X.509: changing the thumbprint ends the connection', async (t) => {
  const [a, b] = [certificate('a'), certificate('b')];
  const d = await device(t, thumbprints(a.sha1, a.sha1));
  await show(t, connectionString(d.id), a);
  await event(d, 'connected');
  await registry.update({ deviceId: d.id, etag: d.identity.etag, ...thumbprints(b.sha1, b.sha1) });
  await event(d, 'disconnected');
  await show(t, connectionString(d.id), b);
});

test('X.509: a module opens by its thumbprint', async (t) => { // with MQTT.js: the SDK's module client has keys only
  const d = await device(t);
  const c = certificate('module');
  await registry.addModule({ deviceId: d.id, moduleId: 'm', ...thumbprints(c.sha1, c.sha1) });
  const client = mqtt.connect({
    protocol: 'mqtts', host, port: 8883, protocolVersion: 4, reconnectPeriod: 0, clientId: `${d.id}/m`,
    username: `${host}/${d.id}/m/?api-version=2021-04-12`, cert: c.cert, key: c.key,
  });
  t.defer(() => client.endAsync(true));
  client.on('error', () => {});
  await once(client, 'connect');
  await client.publishAsync(`devices/${d.id}/modules/m/messages/events/`, '1', { qos: 1 });
  await event({ device: d.id, id: 'm' }, 'telemetry');
});

test("X.509: an authority's devices open by their common name, and nobody else", async (t) => {
  const root = certificate('Fleet CA', { ca: true });
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'twinbay-ca-'));
  t.defer(() => fs.rmSync(folder, { recursive: true }));
  const file = path.join(folder, 'ca.pem');
  fs.writeFileSync(file, root.cert);
  const hub = await start(t, '--device-ca', file);
  const id = name();
  await iothub.Registry.fromConnectionString(hub.HUB_CS).create({ deviceId: id, authentication: { type: 'certificateAuthority' } });
  const client = await show(t, connectionString(id, hub.HUB_HOST), certificate(id, { issuer: root }));
  await client.sendEvent(new Message('1'));
  await fails(show(t, connectionString(id, hub.HUB_HOST), certificate('another', { issuer: root })), 'UnauthorizedError');
  await fails(show(t, connectionString(id, hub.HUB_HOST), certificate(id)), 'UnauthorizedError');
});
