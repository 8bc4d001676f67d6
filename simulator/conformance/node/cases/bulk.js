'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, fails, rest } = require('../hub');

// some are ids that go with the case.
function some(t, n) {
  const ids = Array.from({ length: n }, () => name('bulk'));
  t.defer(() => registry.removeDevices(ids.map((deviceId) => ({ deviceId })), true).catch(() => {}));
  return ids;
}

test('bulk: addDevices makes them all', async (t) => {
  const ids = some(t, 3);
  const { responseBody: got } = await registry.addDevices(ids.map((deviceId) => ({ deviceId })));
  assert.equal(got.isSuccessful, true);
  for (const id of ids) assert.ok((await registry.get(id)).responseBody.authentication.symmetricKey.primaryKey);
});

test('bulk: addDevices tells which are there already', async (t) => {
  const [a, b] = some(t, 2);
  await registry.create({ deviceId: a });
  const got = await rest('POST', '/devices', { body: [{ id: a, importMode: 'create' }, { id: b, importMode: 'create' }] });
  assert.equal(got.body.isSuccessful, false);
  assert.equal(got.body.errors.length, 1);
  assert.equal(got.body.errors[0].deviceId, a);
});

test('bulk: updateDevices by force changes the status', async (t) => {
  const ids = some(t, 2);
  await registry.addDevices(ids.map((deviceId) => ({ deviceId })));
  const { responseBody: got } = await registry.updateDevices(ids.map((deviceId) => ({ deviceId, status: 'disabled' })), true);
  assert.equal(got.isSuccessful, true);
  for (const id of ids) assert.equal((await registry.get(id)).responseBody.status, 'disabled');
});

test('bulk: removeDevices by force removes them', async (t) => {
  const ids = some(t, 2);
  await registry.addDevices(ids.map((deviceId) => ({ deviceId })));
  const { responseBody: got } = await registry.removeDevices(ids.map((deviceId) => ({ deviceId })), true);
  assert.equal(got.isSuccessful, true);
  for (const id of ids) await fails(registry.get(id), 'DeviceNotFoundError');
});

test('bulk: more than a hundred are refused', async () => {
  const got = await rest('POST', '/devices', { body: Array.from({ length: 101 }, () => ({ id: name('bulk'), importMode: 'create' })) });
  assert.equal(got.status, 413);
  assert.equal(got.headers['iothub-errorcode'], 'TooManyDevices');
});

test('bulk: a device comes with its twin', async (t) => {
  const [id] = some(t, 1);
  await rest('POST', '/devices', { body: [{ id, importMode: 'create', tags: { site: 'Kiel' }, properties: { desired: { interval: 3 } } }] });
  const { responseBody: twin } = await registry.getTwin(id);
  assert.equal(twin.tags.site, 'Kiel');
  assert.equal(twin.properties.desired.interval, 3);
});

test('bulk: deleteIfMatchETag with a stale etag deletes nothing', async (t) => {
  const d = await device(t);
  await registry.update({ ...d.identity, statusReason: 'changed' });
  const got = await rest('POST', '/devices', { body: [{ id: d.id, eTag: d.identity.etag, importMode: 'deleteIfMatchETag' }] });
  assert.equal(got.body.isSuccessful, false);
  await registry.get(d.id);
});
