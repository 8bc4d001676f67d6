'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { test } = require('../suite');
const { start } = require('../other');
const { iothub, keep, Client, Message, Mqtt, rest } = require('../hub');

test('state: a hub that was killed knows its devices, keys, twins and messages again', async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'twinbay-state-'));
  t.defer(() => fs.rmSync(folder, { recursive: true }));
  const file = path.join(folder, 'hub.state');
  const first = await start(t, '--state', file);
  const registry = iothub.Registry.fromConnectionString(first.HUB_CS);
  const { responseBody: d } = await registry.create({ deviceId: 'd' });
  await registry.addModule({ deviceId: 'd', moduleId: 'm' });
  await registry.updateTwin('d', { tags: { site: 'Kiel' }, properties: { desired: { interval: 4 } } }, '*');
  const sent = await rest('POST', '/devices/d/messages/deviceBound', { cs: first.HUB_CS, body: 'wait' });
  assert.ok(sent.status === 201 || sent.status === 204, String(sent.status));
  first.child.kill('SIGKILL');
  await new Promise((resolve) => first.child.once('exit', resolve));

  const second = await start(t, '--state', file, '--host-name', first.HUB_HOST);
  const again = iothub.Registry.fromConnectionString(second.HUB_CS);
  const { responseBody: now } = await again.get('d');
  assert.equal(now.authentication.symmetricKey.primaryKey, d.authentication.symmetricKey.primaryKey);
  assert.equal(now.generationId, d.generationId);
  assert.equal(now.cloudToDeviceMessageCount, 1);
  const { responseBody: twin } = await again.getTwin('d');
  assert.equal(twin.tags.site, 'Kiel');
  assert.equal(twin.properties.desired.interval, 4);
  assert.equal((await again.getModulesOnDevice('d')).responseBody.length, 1);
  const client = keep(t, Client.fromConnectionString(`HostName=${second.HUB_HOST};DeviceId=d;SharedAccessKey=${d.authentication.symmetricKey.primaryKey}`, Mqtt));
  await client.open();
  await client.sendEvent(new Message('1'));
});
