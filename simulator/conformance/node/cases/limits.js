'use strict';

// Hubs with limits, and one with another clock.

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { start } = require('../other');
const { iothub, Client, Message, Mqtt, keep, fails, rest, sas } = require('../hub');

// on makes a device of a hub and answers its connection string.
async function on(hub, deviceId) {
  const { responseBody } = await iothub.Registry.fromConnectionString(hub.HUB_CS).create({ deviceId });
  return `HostName=${hub.HUB_HOST};DeviceId=${deviceId};SharedAccessKey=${responseBody.authentication.symmetricKey.primaryKey}`;
}

test('limits: an S1 hub takes a hundred registry operations, holds more back and refuses the rest', async (t) => {
  const hub = await start(t, '--tier', 'S1');
  const registry = iothub.Registry.fromConnectionString(hub.HUB_CS);
  const begin = Date.now();
  const took = await Promise.all(Array.from({ length: 140 }, async (_, n) => {
    try {
      await registry.create({ deviceId: `d${n}` });
      return Date.now() - begin;
    } catch (e) {
      assert.equal(e.name, 'ThrottlingError');
      return undefined;
    }
  }));
  const made = took.filter((ms) => ms !== undefined);
  assert.ok(made.length >= 114 && made.length <= 120, `${made.length} of 140 were made`);
  assert.ok(Math.max(...made) > 5_000, 'none was held back');
});

test('limits: an F1 hub takes 8000 messages a day of half a kilobyte', async (t) => {
  const hub = await start(t, '--tier', 'F1');
  const cs = await on(hub, 'd');
  const client = keep(t, Client.fromConnectionString(cs, Mqtt));
  client.setRetryPolicy({ shouldRetry: () => false, nextRetryTimeout: () => 0 });
  await client.open();
  const big = JSON.stringify('x'.repeat(250 * 1024)); // counts 501 times
  for (let n = 0; n < 15; n++) await client.sendEvent(new Message(big));
  await fails(client.sendEvent(new Message(big)));
  const call = { methodName: 'm', payload: 'x'.repeat(130_000), responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 0 }; // counts 254 times
  assert.equal((await rest('POST', '/twins/d/methods', { cs: hub.HUB_CS, body: call })).headers['iothub-errorcode'], 'DeviceNotOnline');
  const over = await rest('POST', '/twins/d/methods', { cs: hub.HUB_CS, body: call });
  assert.equal(over.status, 403);
  assert.equal(over.headers['iothub-errorcode'], 'IotHubQuotaExceeded');
  await iothub.Registry.fromConnectionString(hub.HUB_CS).get('d'); // the registry is free
});

test("clock: a hub two hours ahead refuses the SDK's tokens of one hour, and says what time it is", async (t) => {
  const hub = await start(t, '--clock-offset', '2h');
  const got = await rest('GET', '/devices/d', { cs: hub.HUB_CS });
  assert.equal(got.status, 401);
  const ahead = Date.parse(got.headers.date) - Date.now();
  assert.ok(Math.abs(ahead - 7_200_000) < 60_000, `the Date header is ${ahead} ms ahead`);
  await fails(iothub.Registry.fromConnectionString(hub.HUB_CS).get('d'), 'UnauthorizedError');
});

test('clock: a hub two hours behind takes a token that ran out an hour ago', async (t) => {
  const hub = await start(t, '--clock-offset', '-2h');
  const cs = await on(hub, 'd');
  const client = keep(t, Client.fromSharedAccessSignature(sas(cs, `${hub.HUB_HOST}/devices/d`, -3600), Mqtt));
  await client.open();
  await client.sendEvent(new Message('1'));
});

test('limits: an S1 hub has one scheduled job at a time, and an F1 hub ten configurations', async (t) => {
  const [s1, f1] = await Promise.all([start(t, '--tier', 'S1'), start(t, '--tier', 'F1')]);
  const jobs = iothub.JobClient.fromConnectionString(s1.HUB_CS);
  const later = new Date(Date.now() + 3_600_000);
  await jobs.scheduleTwinUpdate('first', '*', { etag: '*', tags: { a: 1 } }, later, 60);
  await fails(jobs.scheduleTwinUpdate('second', '*', { etag: '*', tags: { a: 1 } }, later, 60), 'ThrottlingError');
  await jobs.cancelJob('first');
  await jobs.scheduleTwinUpdate('third', '*', { etag: '*', tags: { a: 1 } }, later, 60);
  const registry = iothub.Registry.fromConnectionString(f1.HUB_CS);
  const add = (n) => registry.addConfiguration({ id: `c${n}`, targetCondition: "tags.none = 'x'", priority: n, content: { deviceContent: { 'properties.desired.a': 1 } } });
  for (let n = 1; n <= 10; n++) await add(n);
  await fails(add(11));
});
