'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, module: addModule, open, event, fails, report } = require('../hub');

async function all(query, next = 'next') {
  const found = [];
  while (query.hasMoreResults) found.push(...(await query[next]()).result);
  return found;
}

const select = (sql, pageSize) => all(registry.createQuery(sql, pageSize));

// fleet makes n devices with a tag that no other case has.
async function fleet(t, n, properties = () => ({})) {
  const mark = name('fleet');
  const devices = [];
  for (let i = 0; i < n; i++) {
    const d = await device(t);
    await registry.updateTwin(d.id, { tags: { mark, i }, properties: { desired: properties(i) } }, '*');
    devices.push(d);
  }
  return { mark, ids: devices.map((d) => d.id).sort(), devices };
}

test('query: devices by a tag', async (t) => {
  const { mark, ids } = await fleet(t, 3);
  const got = await select(`SELECT * FROM devices WHERE tags.mark = '${mark}'`);
  assert.deepEqual(got.map((d) => d.deviceId).sort(), ids);
});

test('query: nextAsTwin gives twins that can be updated', async (t) => {
  const { mark } = await fleet(t, 1);
  const [twin] = await all(registry.createQuery(`SELECT * FROM devices WHERE tags.mark = '${mark}'`), 'nextAsTwin');
  const { result: now } = await twin.update({ tags: { found: true } });
  assert.equal(now.tags.found, true);
});

test('query: pages of two', async (t) => {
  const { mark, ids } = await fleet(t, 5);
  const query = registry.createQuery(`SELECT * FROM devices WHERE tags.mark = '${mark}'`, 2);
  const pages = [];
  while (query.hasMoreResults) pages.push((await query.nextAsTwin()).result.map((d) => d.deviceId));
  assert.deepEqual(pages.map((p) => p.length).filter((n) => n), [2, 2, 1]);
  assert.deepEqual(pages.flat().sort(), ids);
});

test('query: comparison, AND, OR, NOT, IN', async (t) => {
  const { mark } = await fleet(t, 6, (i) => ({ level: i * 10 }));
  const where = async (condition) => (await select(`SELECT * FROM devices WHERE tags.mark = '${mark}' AND (${condition})`)).map((d) => d.tags.i).sort();
  assert.deepEqual(await where('properties.desired.level >= 40'), [4, 5]);
  assert.deepEqual(await where('properties.desired.level < 10 OR tags.i = 3'), [0, 3]);
  assert.deepEqual(await where('NOT properties.desired.level > 0'), [0]);
  assert.deepEqual(await where('tags.i IN [1, 2, 99]'), [1, 2]);
  assert.deepEqual(await where('properties.desired.level != 0 AND properties.desired.level <= 20'), [1, 2]);
});

test('query: is_defined and starts_with', async (t) => {
  const { mark, ids } = await fleet(t, 2, (i) => (i ? { name: 'pump-1' } : {}));
  const having = await select(`SELECT * FROM devices WHERE tags.mark = '${mark}' AND is_defined(properties.desired.name)`);
  assert.equal(having.length, 1);
  const starting = await select(`SELECT * FROM devices WHERE tags.mark = '${mark}' AND startswith(properties.desired.name, 'pump')`);
  assert.deepEqual(starting.map((d) => d.deviceId), having.map((d) => d.deviceId));
  assert.equal(ids.length, 2);
});

test('query: a projection names its columns', async (t) => {
  const { mark } = await fleet(t, 1, () => ({ level: 7 }));
  const got = await select(`SELECT deviceId, properties.desired.level AS level FROM devices WHERE tags.mark = '${mark}'`);
  assert.equal(got.length, 1);
  assert.equal(got[0].level, 7);
});

test('query: COUNT and GROUP BY', async (t) => {
  const { mark } = await fleet(t, 4, (i) => ({ kind: i < 3 ? 'pump' : 'fan' }));
  const [{ n }] = await select(`SELECT COUNT() AS n FROM devices WHERE tags.mark = '${mark}'`);
  assert.equal(n, 4);
  const groups = await select(`SELECT properties.desired.kind AS kind, COUNT() AS n FROM devices WHERE tags.mark = '${mark}' GROUP BY properties.desired.kind`);
  assert.deepEqual(groups.sort((a, b) => a.n - b.n), [{ kind: 'fan', n: 1 }, { kind: 'pump', n: 3 }]);
});

test('query: modules by a reported property', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const client = await open(t, m);
  const mark = name('reported');
  await report(await client.getTwin(), { mark });
  const got = await select(`SELECT * FROM devices.modules WHERE properties.reported.mark = '${mark}'`);
  assert.deepEqual(got.map((x) => [x.deviceId, x.moduleId]), [[d.id, m.id]]);
});

test('query: connectionState is that of now', async (t) => {
  const { mark, devices } = await fleet(t, 2);
  await open(t, devices[0]);
  await event(devices[0], 'connected');
  const got = await select(`SELECT * FROM devices WHERE tags.mark = '${mark}' AND connectionState = 'Connected'`);
  assert.deepEqual(got.map((d) => d.deviceId), [devices[0].id]);
});

test('query: a mistake in the text is ArgumentError', async () => {
  await fails(registry.createQuery('SELECT FROM WHERE').next(), 'ArgumentError');
});
