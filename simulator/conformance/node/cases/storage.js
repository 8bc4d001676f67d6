'use strict';

// Import, export and file uploads, with Azurite as the storage account.

const assert = require('node:assert/strict');
const { BlockBlobClient } = require('@azure/storage-blob');
const { test } = require('../suite');
const { start } = require('../other');
const azurite = require('../azurite');
const { registry, iothub, name, device, module: addModule, fails, open, keep, rest, Client, Mqtt } = require('../hub');

// done waits for a job's end and answers it.
async function done(of, job) {
  for (;;) {
    const now = await of.getJob(job.jobId);
    if (['completed', 'failed', 'cancelled'].includes(now.status)) return now;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// own is a hub without other cases' devices: it runs one import or export at a time.
async function own(t) {
  const hub = await start(t);
  return { ...hub, registry: iothub.Registry.fromConnectionString(hub.HUB_CS) };
}

// lines are the identities of an export: a line each, behind a notice where keys are left out.
const lines = (text) => text.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));

test('export: every device and module is a line, with keys', async (t) => {
  const storage = await azurite();
  const box = await storage.container(name('export'));
  const hub = await own(t);
  await hub.registry.create({ deviceId: 'd1' });
  await hub.registry.addModule({ deviceId: 'd1', moduleId: 'm1' });
  await hub.registry.updateTwin('d1', { tags: { site: 'Kiel' }, properties: { desired: { interval: 3 } } }, '*');
  const { responseBody: d1 } = await hub.registry.get('d1');
  const job = await done(hub.registry, await hub.registry.exportDevicesToBlob(box.uri, false));
  assert.equal(job.status, 'completed', job.failureReason);
  assert.equal(job.type, 'export');
  const got = lines(await storage.text(box, 'devices.txt'));
  const device1 = got.find((x) => x.id === 'd1' && !x.moduleId);
  assert.equal(device1.authentication.symmetricKey.primaryKey, d1.authentication.symmetricKey.primaryKey);
  assert.equal(device1.tags.site, 'Kiel');
  assert.ok(got.some((x) => x.id === 'd1' && x.moduleId === 'm1'));
});

test('export: without keys', async (t) => {
  const storage = await azurite();
  const box = await storage.container(name('export'));
  const hub = await own(t);
  await hub.registry.create({ deviceId: 'd1' });
  const job = await done(hub.registry, await hub.registry.exportDevicesToBlob(box.uri, true));
  assert.equal(job.status, 'completed', job.failureReason);
  const [d1] = lines(await storage.text(box, 'devices.txt'));
  assert.ok(!d1.authentication?.symmetricKey?.primaryKey);
});

test('import: devices come from a blob, and mistakes go to importErrors.log', async (t) => {
  const storage = await azurite();
  const input = await storage.container(name('import'));
  const output = await storage.container(name('importlog'));
  const hub = await own(t);
  await hub.registry.create({ deviceId: 'there' });
  const text = [
    { id: 'new1', importMode: 'create', status: 'enabled', tags: { site: 'Kiel' } },
    { id: 'new2', importMode: 'create', status: 'disabled' },
    { id: 'there', importMode: 'create', status: 'enabled' },
  ].map((x) => JSON.stringify(x)).join('\n');
  await input.client.getBlockBlobClient('devices.txt').upload(text, Buffer.byteLength(text));
  const job = await done(hub.registry, await hub.registry.importDevicesFromBlob(input.uri, output.uri));
  assert.equal(job.status, 'completed', job.failureReason);
  assert.equal((await hub.registry.get('new2')).responseBody.status, 'disabled');
  assert.equal((await hub.registry.getTwin('new1')).responseBody.tags.site, 'Kiel');
  assert.match(await storage.text(output, 'importErrors.log'), /there/);
});

test('import: what one hub exports another imports, keys and twins', async (t) => {
  const storage = await azurite();
  const box = await storage.container(name('move'));
  const [from, to] = await Promise.all([own(t), own(t)]);
  await from.registry.create({ deviceId: 'd1' });
  await from.registry.updateTwin('d1', { tags: { a: 1 }, properties: { desired: { b: 2 } } }, '*');
  assert.equal((await done(from.registry, await from.registry.exportDevicesToBlob(box.uri, false))).status, 'completed');
  assert.equal((await done(to.registry, await to.registry.importDevicesFromBlob(box.uri, box.uri))).status, 'completed');
  const { responseBody: before } = await from.registry.get('d1');
  const { responseBody: after } = await to.registry.get('d1');
  assert.equal(after.authentication.symmetricKey.primaryKey, before.authentication.symmetricKey.primaryKey);
  const { responseBody: twin } = await to.registry.getTwin('d1');
  assert.equal(twin.tags.a, 1);
  assert.equal(twin.properties.desired.b, 2);
});

test('export: a container that is not there is refused', async (t) => {
  const storage = await azurite();
  const hub = await own(t);
  await fails(hub.registry.exportDevicesToBlob(`${storage.service.url}nowhere?sv=2024-01-01&sig=AAAA&sp=rwdl`, true));
});

test('jobs of import and export: an unknown one is refused, and they are listed', async () => {
  await fails(registry.getJob('00000000-0000-0000-0000-000000000000'));
  const { responseBody: all } = await registry.listJobs();
  assert.ok(Array.isArray(all));
});

test('file upload: a device asks for a place, uploads and reports', async (t) => {
  const storage = await azurite();
  const container = name('uploads');
  await storage.service.getContainerClient(container).create();
  const hub = await start(t, '--storage', storage.connectionString, '--storage-container', container);
  const { responseBody: d } = await iothub.Registry.fromConnectionString(hub.HUB_CS).create({ deviceId: 'd' });
  const client = keep(t, Client.fromConnectionString(`HostName=${hub.HUB_HOST};DeviceId=d;SharedAccessKey=${d.authentication.symmetricKey.primaryKey}`, Mqtt));
  await client.open(); // who never opened leaves the token's timer running when he closes (azure-iot-device 1.18.4)
  const place = await client.getBlobSharedAccessSignature('log.txt');
  assert.equal(place.blobName, 'd/log.txt');
  const url = `http://${place.hostName}/${place.containerName}/${place.blobName}${place.sasToken}`;
  await new BlockBlobClient(url).upload('hello', 5);
  await client.notifyBlobUploadStatus(place.correlationId, true, 200, 'ok');
  assert.equal((await storage.service.getContainerClient(container).getBlobClient('d/log.txt').downloadToBuffer()).toString(), 'hello');
});

test('file upload: a hub without storage refuses', async (t) => {
  const d = await device(t);
  const client = await open(t, d);
  await fails(client.getBlobSharedAccessSignature('x'));
  const got = await rest('POST', `/devices/${d.id}/files`, { cs: d.cs, body: { blobName: 'x' } });
  assert.ok(got.status >= 400, String(got.status));
});

test('file upload: not for modules', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const got = await rest('POST', `/devices/${d.id}/modules/${m.id}/files`, { cs: d.cs, body: { blobName: 'x' } });
  assert.ok(got.status === 400 || got.status === 401, String(got.status));
});
