'use strict';

// Departments share a device: each has tokens for what is its own.

const assert = require('node:assert/strict');
const { ConnectionString } = require('azure-iot-common');
const { test } = require('../suite');
const { registry, host, owner, sas, device, module: addModule, open, rest } = require('../hub');

// token is one of the owner's policy for a part of the hub.
const token = (path) => sas(owner, `${host}/${path}`);

// as makes requests with a token. The SDK's fromSharedAccessSignature takes the token's whole resource for a host name, so that it
// knows tokens for a whole hub only (azure-iothub 1.16.6, SharedAccessSignature.parse).
const as = (path) => (method, target, body) => rest(method, target, { token: token(path), body });

test("departments: a token for one module's twin is good for that twin alone", async (t) => {
  const d = await device(t);
  await addModule(t, d, 'coins');
  await addModule(t, d, 'climate');
  const coins = as(`twins/${d.id}/modules/coins`);
  const got = await coins('PATCH', `/twins/${d.id}/modules/coins`, { properties: { desired: { accept: 'EUR' } } });
  assert.equal(got.status, 200);
  assert.equal(got.body.properties.desired.accept, 'EUR');
  assert.equal((await coins('GET', `/twins/${d.id}/modules/climate`)).status, 401);
  assert.equal((await coins('GET', `/twins/${d.id}`)).status, 401);
});

test("departments: and for that module's methods", async (t) => {
  const d = await device(t);
  const m = await addModule(t, d, 'coins');
  const client = await open(t, m);
  client.onMethod('empty', (_, response) => response.send(200, 'done'));
  const coins = as(`twins/${d.id}/modules/coins`);
  const call = { methodName: 'empty', payload: null, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10 };
  const got = await coins('POST', `/twins/${d.id}/modules/coins/methods`, call);
  assert.deepEqual(got.body, { status: 200, payload: 'done' });
  assert.equal((await coins('POST', `/twins/${d.id}/modules/climate/methods`, call)).status, 401);
  assert.equal((await coins('POST', `/twins/${d.id}/methods`, call)).status, 401);
});

test('departments: a token for a device is good for its modules and for no other device', async (t) => {
  const d = await device(t);
  const other = await device(t);
  await addModule(t, d, 'coins');
  const site = as(`twins/${d.id}`);
  assert.equal((await site('GET', `/twins/${d.id}`)).status, 200);
  assert.equal((await site('GET', `/twins/${d.id}/modules/coins`)).status, 200);
  assert.equal((await site('GET', `/twins/${other.id}`)).status, 401);
});

test('departments: a device manages its own modules with its own key', async (t) => {
  const d = await device(t);
  const made = await rest('PUT', `/devices/${d.id}/modules/own`, { cs: d.cs, body: { deviceId: d.id, moduleId: 'own' } });
  assert.equal(made.status, 200, JSON.stringify(made.body));
  const listed = await rest('GET', `/devices/${d.id}/modules`, { cs: d.cs });
  assert.deepEqual(listed.body.map((m) => m.moduleId), ['own']);
  const other = await device(t);
  const refused = await rest('PUT', `/devices/${other.id}/modules/own`, { cs: d.cs, body: { deviceId: other.id, moduleId: 'own' } });
  assert.equal(refused.status, 401);
});

test('departments: the owner\'s connection string names host, policy and key', () => {
  const c = ConnectionString.parse(owner);
  assert.equal(c.HostName, host);
  assert.equal(c.SharedAccessKeyName, 'iothubowner');
  assert.ok(Buffer.from(c.SharedAccessKey, 'base64').length >= 16);
});

test('departments: a key that does not read twins is refused', async (t) => {
  const d = await device(t);
  const { responseBody: twin } = await registry.getTwin(d.id);
  assert.ok(twin);
  const got = await rest('GET', `/twins/${d.id}`, { cs: d.cs });
  assert.equal(got.status, 401);
});
