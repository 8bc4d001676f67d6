'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, fails, rest, sas, owner, host } = require('../hub');

test('errors: each has the header, the code in Message and a tracking id', async () => {
  const id = name('nobody');
  const got = await rest('GET', `/devices/${id}`);
  assert.equal(got.status, 404);
  assert.equal(got.headers['iothub-errorcode'], 'DeviceNotFound');
  assert.match(got.headers['content-type'], /application\/json/);
  assert.match(got.body.Message, new RegExp(`^ErrorCode:DeviceNotFound;.*${id}`));
  assert.match(got.body.ExceptionMessage, /^Tracking ID:.*-TimeStamp:\d\d\/\d\d\/\d{4} \d\d:\d\d:\d\d$/);
});

test('errors: no api-version is InvalidProtocolVersion', async () => {
  const got = await rest('GET', '/devices/x?api-version=');
  assert.equal(got.status, 400);
  assert.equal(got.headers['iothub-errorcode'], 'InvalidProtocolVersion');
});

test('errors: no token is 401', async () => {
  const got = await rest('GET', '/devices/x', { token: '' });
  assert.equal(got.status, 401);
  assert.equal(got.body.Message, 'ErrorCode:IotHubUnauthorizedAccess;Unauthorized');
});

test('errors: a body that is no JSON is IotHubFormatError', async () => {
  const got = await rest('PUT', `/devices/${name()}`, { body: '{"deviceId":' });
  assert.equal(got.status, 400);
  assert.equal(got.headers['iothub-errorcode'], 'IotHubFormatError');
});

test('errors: ids of path and body must agree', async () => {
  const got = await rest('PUT', `/devices/${name()}`, { body: { deviceId: 'another' } });
  assert.equal(got.status, 400);
});

test('errors: an unknown path is 404 and an unknown method 405', async () => {
  assert.equal((await rest('GET', '/no/such/thing')).status, 404);
  assert.equal((await rest('PATCH', '/devices/x')).status, 405);
});

test('errors: the SDK keeps the body of the answer on its error', async () => {
  const id = name('nobody');
  const e = await fails(registry.get(id), 'DeviceNotFoundError');
  assert.match(e.responseBody, /DeviceNotFound/);
});

test('errors: escaped slashes in the path are slashes', async (t) => {
  const d = await device(t);
  const got = await rest('GET', `/devices%2F${d.id}`);
  assert.equal(got.status, 200);
});

test('errors: every api-version in use is taken', async (t) => {
  const d = await device(t);
  for (const version of ['2018-06-30', '2019-10-01', '2020-05-31-preview', '2020-09-30', '2021-04-12']) {
    const got = await rest('GET', `/devices/${d.id}?api-version=${version}`);
    assert.equal(got.status, 200, version);
  }
});

test('errors: a token for a part of the hub is good for that part', async (t) => {
  const d = await device(t);
  const token = sas(owner, `${host}/devices/${d.id}`);
  assert.equal((await rest('GET', `/devices/${d.id}`, { token })).status, 200);
  assert.equal((await rest('GET', '/statistics/devices', { token })).status, 401);
});

test('errors: what this hub lacks is listed, and what was asked for in vain', async () => {
  const path = `/digitaltwins/${name('nobody')}`;
  assert.equal((await rest('GET', path)).status, 404);
  const { body } = await rest('GET', '/_sim/unsupported');
  assert.ok(body.unsupported.some((gap) => /AMQP/.test(gap.operation) && gap.status === 'no'));
  assert.ok(body.attempts.some((a) => a.what === `GET ${path}` && a.count === 1));
});
