'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, fails, rest } = require('../hub');

test('registry: a created device has keys, an etag and a generation', async (t) => {
  const d = await device(t);
  const got = d.identity;
  assert.equal(got.deviceId, d.id);
  assert.equal(got.status, 'enabled');
  assert.equal(got.connectionState, 'Disconnected');
  assert.equal(got.authentication.type, 'sas');
  assert.equal(Buffer.from(got.authentication.symmetricKey.primaryKey, 'base64').length, 32);
  assert.notEqual(got.authentication.symmetricKey.primaryKey, got.authentication.symmetricKey.secondaryKey);
  assert.match(got.generationId, /^[0-9]+$/);
  assert.ok(got.etag);
});

test('registry: given keys are kept', async (t) => {
  const primaryKey = Buffer.alloc(32, 1).toString('base64');
  const secondaryKey = Buffer.alloc(32, 2).toString('base64');
  const d = await device(t, { authentication: { symmetricKey: { primaryKey, secondaryKey } } });
  assert.deepEqual(d.identity.authentication.symmetricKey, { primaryKey, secondaryKey });
});

test('registry: get shows what create answered', async (t) => {
  const d = await device(t, { status: 'disabled', statusReason: 'in the workshop' });
  const { responseBody: got } = await registry.get(d.id);
  assert.equal(got.status, 'disabled');
  assert.equal(got.statusReason, 'in the workshop');
  assert.equal(got.generationId, d.identity.generationId);
});

test('registry: creating a device twice is DeviceAlreadyExistsError', async (t) => {
  const d = await device(t);
  await fails(registry.create({ deviceId: d.id }), 'DeviceAlreadyExistsError');
});

test('registry: an unknown device is DeviceNotFoundError', async () => {
  await fails(registry.get(name('nobody')), 'DeviceNotFoundError');
});

test('registry: a device id with a slash is ArgumentError', async () => {
  const got = await rest('PUT', '/devices/a%20b', { body: { deviceId: 'a b' } });
  assert.equal(got.status, 400);
  assert.equal(got.headers['iothub-errorcode'], 'ArgumentInvalid');
});

test('registry: ids with percent signs and hashes come through', async (t) => {
  const id = name("odd-%#*?!(),:=@$'.+_;");
  const d = await device(t, { deviceId: id });
  const { responseBody: got } = await registry.get(d.id);
  assert.equal(got.deviceId, id);
});

test('registry: update changes status and reason', async (t) => {
  const d = await device(t);
  const { responseBody: got } = await registry.update({ ...d.identity, status: 'disabled', statusReason: 'stolen' });
  assert.equal(got.status, 'disabled');
  assert.equal(got.statusReason, 'stolen');
  assert.notEqual(got.etag, d.identity.etag);
  assert.equal(got.authentication.symmetricKey.primaryKey, d.key);
});

test('registry: update rotates a key', async (t) => {
  const d = await device(t);
  const primaryKey = Buffer.alloc(32, 7).toString('base64');
  const { secondaryKey } = d.identity.authentication.symmetricKey;
  await registry.update({ ...d.identity, authentication: { type: 'sas', symmetricKey: { primaryKey, secondaryKey } } });
  const { responseBody: got } = await registry.get(d.id);
  assert.deepEqual(got.authentication.symmetricKey, { primaryKey, secondaryKey });
});

test('registry: update of an unknown device is refused', async () => {
  await fails(registry.update({ deviceId: name('nobody'), status: 'enabled' }));
});

test('registry: a stale etag is refused with 412', async (t) => {
  const d = await device(t);
  await registry.update({ ...d.identity, statusReason: 'one' });
  const got = await rest('PUT', `/devices/${d.id}`, {
    headers: { 'If-Match': `"${d.identity.etag}"` },
    body: { ...d.identity, statusReason: 'two' },
  });
  assert.equal(got.status, 412);
  assert.equal(got.headers['iothub-errorcode'], 'PreconditionFailed');
});

test('registry: the etag of the identity deletes it, a stale one does not', async (t) => {
  const d = await device(t);
  const { responseBody: now } = await registry.update({ ...d.identity, statusReason: 'moved' });
  const stale = await rest('DELETE', `/devices/${d.id}`, { headers: { 'If-Match': `"${d.identity.etag}"` } });
  assert.equal(stale.status, 412);
  const fresh = await rest('DELETE', `/devices/${d.id}`, { headers: { 'If-Match': `"${now.etag}"` } });
  assert.equal(fresh.status, 204);
});

test('registry: delete removes the device', async (t) => {
  const d = await device(t);
  await registry.delete(d.id);
  await fails(registry.get(d.id), 'DeviceNotFoundError');
  await fails(registry.delete(d.id), 'DeviceNotFoundError');
});

test('registry: a device made anew has another generation', async (t) => {
  const d = await device(t);
  await registry.delete(d.id);
  const { responseBody: again } = await registry.create({ deviceId: d.id });
  assert.notEqual(again.generationId, d.identity.generationId);
  assert.notEqual(again.etag, d.identity.etag);
});

test('registry: list holds the devices', async (t) => {
  const a = await device(t);
  const b = await device(t);
  const { responseBody: all } = await registry.list();
  const ids = all.map((d) => d.deviceId);
  assert.ok(ids.includes(a.id) && ids.includes(b.id));
});

test('registry: statistics count devices', async (t) => {
  await device(t, { status: 'disabled' });
  const { responseBody: got } = await registry.getRegistryStatistics();
  assert.ok(got.disabledDeviceCount >= 1);
  assert.equal(got.totalDeviceCount, got.enabledDeviceCount + got.disabledDeviceCount);
});

test('registry: a thumbprint device has no keys', async (t) => {
  const d = await device(t, {
    authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: 'A'.repeat(40), secondaryThumbprint: 'B'.repeat(40) } },
  });
  assert.equal(d.identity.authentication.type, 'selfSigned');
  assert.equal(d.identity.authentication.symmetricKey.primaryKey, null);
  assert.equal(d.identity.authentication.x509Thumbprint.primaryThumbprint, 'A'.repeat(40));
});

test('registry: a certificate authority device', async (t) => {
  const d = await device(t, { authentication: { type: 'certificateAuthority' } });
  assert.equal(d.identity.authentication.type, 'certificateAuthority');
});

test('registry: a key that is too short is ArgumentError', async () => {
  const primaryKey = Buffer.alloc(8, 1).toString('base64');
  await fails(registry.create({ deviceId: name(), authentication: { symmetricKey: { primaryKey, secondaryKey: primaryKey } } }), 'ArgumentError');
});
