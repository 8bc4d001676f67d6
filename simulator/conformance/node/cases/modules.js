'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, name, device, module: addModule, fails, rest, open, event, service, report, Mqtt, Message } = require('../hub');

test('modules: an added module has its own keys', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d, 'climate');
  assert.equal(m.identity.moduleId, 'climate');
  assert.equal(m.identity.deviceId, d.id);
  assert.notEqual(m.key, d.key);
});

test('modules: adding a module twice is an error of 409', async (t) => {
  const d = await device(t);
  await addModule(t, d, 'climate');
  await fails(registry.addModule({ deviceId: d.id, moduleId: 'climate' }), 'DeviceAlreadyExistsError');
  const got = await rest('PUT', `/devices/${d.id}/modules/climate`, { body: { deviceId: d.id, moduleId: 'climate' } });
  assert.equal(got.status, 409);
  assert.equal(got.headers['iothub-errorcode'], 'ModuleAlreadyExistsOnDevice');
  assert.equal(got.body.errorCode, 409301);
});

test('modules: a module of an unknown device is UnauthorizedError, as measured', async () => {
  await fails(registry.addModule({ deviceId: name('nobody'), moduleId: 'm' }), 'UnauthorizedError');
});

test('modules: getModulesOnDevice lists them', async (t) => {
  const d = await device(t);
  await addModule(t, d, 'a');
  await addModule(t, d, 'b');
  const { responseBody: got } = await registry.getModulesOnDevice(d.id);
  assert.deepEqual(got.map((m) => m.moduleId).sort(), ['a', 'b']);
});

test('modules: an unknown module is refused with 404', async (t) => {
  const d = await device(t);
  await fails(registry.getModule(d.id, 'nobody'));
  const got = await rest('GET', `/devices/${d.id}/modules/nobody`);
  assert.equal(got.status, 404);
  assert.equal(got.headers['iothub-errorcode'], 'ModuleNotFound');
});

test('modules: updateModule changes managedBy', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const { responseBody: got } = await registry.updateModule({ ...m.identity, managedBy: 'payment' }, true);
  assert.equal(got.managedBy, 'payment');
});

test('modules: a stale etag of updateModule is InvalidEtagError', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  await registry.updateModule({ ...m.identity, managedBy: 'one' }, false);
  await fails(registry.updateModule({ ...m.identity, managedBy: 'two' }, false), 'InvalidEtagError');
});

test('modules: removeModule by ids', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  await registry.removeModule(d.id, m.id);
  const { responseBody: left } = await registry.getModulesOnDevice(d.id);
  assert.deepEqual(left, []);
});

test('modules: removeModule by identity needs its etag', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  await registry.updateModule({ ...m.identity, managedBy: 'someone' }, true);
  // The promise form of this overload refuses itself (azure-iothub 1.16.6), the callback form works.
  const remove = (identity) => new Promise((resolve, reject) => registry.removeModule(identity, (e) => (e ? reject(e) : resolve())));
  await fails(remove(m.identity), 'InvalidEtagError');
  const { responseBody: now } = await registry.getModule(d.id, m.id);
  await remove(now);
});

test('modules: deleting the device deletes its modules', async (t) => {
  const d = await device(t);
  await addModule(t, d, 'm');
  await registry.delete(d.id);
  const { responseBody: again } = await registry.create({ deviceId: d.id });
  assert.ok(again);
  const { responseBody: got } = await registry.getModulesOnDevice(d.id);
  assert.deepEqual(got, []);
});

test('modules: the twenty-first module is refused', async (t) => {
  const d = await device(t);
  for (let i = 0; i < 20; i++) await registry.addModule({ deviceId: d.id, moduleId: `m${i}` });
  const got = await rest('PUT', `/devices/${d.id}/modules/m20`, { body: { deviceId: d.id, moduleId: 'm20' } });
  assert.equal(got.status, 413);
  assert.equal(got.headers['iothub-errorcode'], 'TooManyModulesOnDevice');
});

test('modules: device and three modules are connected at once and apart', async (t) => {
  const d = await device(t);
  const modules = [];
  for (const id of ['coins', 'climate', 'door']) modules.push(await addModule(t, d, id));
  await open(t, d);
  const clients = await Promise.all(modules.map((m) => open(t, m)));
  await Promise.all(clients.map((c, i) => c.sendEvent(new Message(JSON.stringify({ from: modules[i].id })))));
  for (const m of modules) {
    const e = await event(m, 'telemetry');
    assert.deepEqual(e.body, { from: m.id });
  }
  const { responseBody: seen } = await registry.get(d.id);
  assert.equal(seen.connectionState, 'Connected');
});

test('modules: each module has its own twin', async (t) => {
  const d = await device(t);
  const a = await addModule(t, d, 'a');
  const b = await addModule(t, d, 'b');
  const [ca, cb] = await Promise.all([open(t, a), open(t, b)]);
  const [ta, tb] = await Promise.all([ca.getTwin(), cb.getTwin()]);
  await Promise.all([report(ta, { is: 'a' }), report(tb, { is: 'b' })]);
  const { responseBody: seenA } = await registry.getModuleTwin(d.id, 'a');
  const { responseBody: seenB } = await registry.getModuleTwin(d.id, 'b');
  const { responseBody: seenDevice } = await registry.getTwin(d.id);
  assert.equal(seenA.properties.reported.is, 'a');
  assert.equal(seenB.properties.reported.is, 'b');
  assert.equal(seenDevice.properties.reported.is, undefined);
});

test("modules: a module's key opens no other module", async (t) => {
  const d = await device(t);
  const a = await addModule(t, d, 'a');
  const b = await addModule(t, d, 'b');
  await fails(open(t, { ...a, cs: a.cs.replace(/SharedAccessKey=.*/, `SharedAccessKey=${b.key}`) }), 'UnauthorizedError');
});

test("modules: the device's key opens none of its modules", async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  await fails(open(t, { ...m, cs: m.cs.replace(/SharedAccessKey=.*/, `SharedAccessKey=${d.key}`) }), 'UnauthorizedError');
});

test('modules: a method of one module does not reach its neighbour', async (t) => {
  const d = await device(t);
  const a = await addModule(t, d, 'a');
  const b = await addModule(t, d, 'b');
  const [ca, cb] = await Promise.all([open(t, a, Mqtt), open(t, b, Mqtt)]);
  ca.onMethod('who', (_, response) => response.send(200, 'a'));
  cb.onMethod('who', (_, response) => response.send(200, 'b'));
  for (const id of ['a', 'b']) {
    const { result } = await service.invokeDeviceMethod(d.id, id, { methodName: 'who', payload: null, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10 });
    assert.deepEqual(result, { status: 200, payload: id });
  }
});
