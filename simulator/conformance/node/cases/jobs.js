'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, jobs, name, guid, device, module: addModule, open, fails, rest, once, listen } = require('../hub');

// done waits for a job's end and answers it.
async function done(id) {
  for (;;) {
    const { jobStatus } = await jobs.getJob(id);
    if (['completed', 'failed', 'cancelled'].includes(jobStatus.status)) return jobStatus;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// fleet makes n devices with a tag of their own, and answers the condition that selects them.
async function fleet(t, n) {
  const mark = name('job');
  const devices = [];
  for (let i = 0; i < n; i++) {
    const d = await device(t);
    await registry.updateTwin(d.id, { tags: { mark } }, '*');
    devices.push(d);
  }
  return { devices, where: `tags.mark = '${mark}'` };
}

const method = { methodName: 'reset', payload: { soft: true }, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 0 };

test('jobs: a twin update reaches every device of the condition', async (t) => {
  const { devices, where } = await fleet(t, 3);
  const id = guid();
  await jobs.scheduleTwinUpdate(id, where, { etag: '*', properties: { desired: { interval: 8 } }, tags: { updated: true } }, new Date(), 60);
  const job = await done(id);
  assert.equal(job.status, 'completed', JSON.stringify(job));
  assert.equal(job.deviceJobStatistics.succeededCount, 3);
  for (const d of devices) {
    const { responseBody: twin } = await registry.getTwin(d.id);
    assert.equal(twin.properties.desired.interval, 8);
    assert.equal(twin.tags.updated, true);
  }
});

test('jobs: the devices hear of the twin update', async (t) => {
  const { devices: [d], where } = await fleet(t, 1);
  const twin = await listen(await open(t, d));
  const got = once(twin, 'properties.desired', (p) => p.level !== undefined);
  await jobs.scheduleTwinUpdate(guid(), where, { etag: '*', properties: { desired: { level: 3 } } }, new Date(), 60);
  assert.equal((await got).level, 3);
});

test('jobs: a method is called on every device, and the outcomes are kept', async (t) => {
  const { devices, where } = await fleet(t, 2);
  const client = await open(t, devices[0]);
  client.onDeviceMethod('reset', (request, response) => response.send(200, { was: request.payload }));
  await listen(client); // what is sent before is behind by then: the hub knows that it takes methods
  const id = guid();
  await jobs.scheduleDeviceMethod(id, where, method, new Date(), 60);
  const job = await done(id);
  assert.equal(job.deviceJobStatistics.succeededCount, 1);
  assert.equal(job.deviceJobStatistics.failedCount, 1);
});

test('jobs: a job for later is scheduled, and can be cancelled', async (t) => {
  const { where } = await fleet(t, 1);
  const id = guid();
  await jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { never: true } }, new Date(Date.now() + 3_600_000), 60);
  const { jobStatus: waiting } = await jobs.getJob(id);
  assert.ok(['queued', 'scheduled', 'enqueued'].includes(waiting.status), waiting.status);
  await jobs.cancelJob(id);
  assert.equal((await done(id)).status, 'cancelled');
});

test('jobs: one id cannot be used twice', async (t) => {
  const { where } = await fleet(t, 1);
  const id = guid();
  await jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { a: 1 } }, new Date(), 60);
  await fails(jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { a: 2 } }, new Date(), 60));
  await done(id);
});

test('jobs: they are listed by type', async (t) => {
  const { where } = await fleet(t, 1);
  const id = guid();
  await jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { a: 1 } }, new Date(), 60);
  await done(id);
  const query = jobs.createQuery('scheduleUpdateTwin', 'completed');
  const found = [];
  while (query.hasMoreResults) found.push(...(await query.next()).result);
  assert.ok(found.some((j) => j.jobId === id));
  assert.ok(found.every((j) => j.type === 'scheduleUpdateTwin'));
});

test('jobs: what became of each device is found by a query', async (t) => {
  const { devices, where } = await fleet(t, 2);
  const id = guid();
  await jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { a: 1 } }, new Date(), 60);
  await done(id);
  const query = registry.createQuery(`SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '${id}'`);
  const found = [];
  while (query.hasMoreResults) found.push(...(await query.next()).result);
  assert.deepEqual(found.map((x) => x.deviceId).sort(), devices.map((d) => d.id).sort());
  assert.ok(found.every((x) => x.status === 'completed'));
});

test('jobs: an unknown one has the status unknown', async () => {
  const { jobStatus } = await jobs.getJob(guid());
  assert.equal(jobStatus.status, 'unknown');
});

test('jobs: a condition that is no condition is refused or fails', async (t) => {
  await device(t);
  const got = await rest('PUT', `/jobs/v2/${guid()}`, { body: { jobId: guid(), type: 'scheduleUpdateTwin', updateTwin: { etag: '*', tags: { a: 1 } }, queryCondition: 'WHERE WHERE', startTime: new Date().toISOString(), maxExecutionTimeInSeconds: 60 } });
  assert.equal(got.status, 400);
});

test('jobs: modules by a condition over modules', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const mark = name('modules');
  await registry.updateModuleTwin(d.id, m.id, { tags: { mark } }, '*');
  const id = guid();
  await jobs.scheduleTwinUpdate(id, `FROM devices.modules WHERE tags.mark = '${mark}'`, { etag: '*', properties: { desired: { z: 1 } } }, new Date(), 60);
  const job = await done(id);
  assert.equal(job.deviceJobStatistics.succeededCount, 1, JSON.stringify(job));
  assert.equal((await registry.getModuleTwin(d.id, m.id)).responseBody.properties.desired.z, 1);
});
