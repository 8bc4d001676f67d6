'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { registry, device, rest } = require('../hub');

test('edge: an IoT Edge device has its system modules and a scope', async (t) => {
  const d = await device(t, { capabilities: { iotEdge: true } });
  assert.equal(d.identity.capabilities.iotEdge, true);
  assert.match(d.identity.deviceScope, /^ms-azure-iot-edge:\/\//);
  const { responseBody: modules } = await registry.getModulesOnDevice(d.id);
  assert.deepEqual(modules.map((m) => m.moduleId).sort(), ['$edgeAgent', '$edgeHub']);
});

test('edge: a child device is in the scope of its parent', async (t) => {
  const parent = await device(t, { capabilities: { iotEdge: true } });
  const child = await device(t, { deviceScope: parent.identity.deviceScope });
  assert.equal(child.identity.deviceScope, parent.identity.deviceScope);
});

test('edge: a system module is not deleted', async (t) => {
  const d = await device(t, { capabilities: { iotEdge: true } });
  const got = await rest('DELETE', `/devices/${d.id}/modules/%24edgeAgent`, { headers: { 'If-Match': '*' } });
  assert.equal(got.status, 401);
  assert.equal(got.headers['iothub-errorcode'], 'SystemModuleModifyUnauthorizedAccess');
});

test('edge: the twin of a system module is read and written', async (t) => {
  const d = await device(t, { capabilities: { iotEdge: true } });
  const { responseBody: now } = await registry.updateModuleTwin(d.id, '$edgeAgent', { properties: { desired: { schemaVersion: '1.1' } } }, '*');
  assert.equal(now.properties.desired.schemaVersion, '1.1');
});
