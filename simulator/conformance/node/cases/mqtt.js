'use strict';

// What no SDK does wrong by itself, said with MQTT.js in MQTT 3.1.1.

const assert = require('node:assert/strict');
const mqtt = require('mqtt');
const { test } = require('../suite');
const { host, sas, device, module: addModule, event, count, within } = require('../hub');

// dial opens a plain MQTT connection of a device or module.
async function dial(t, who, more = {}) {
  const id = who.device ? `${who.device}/${who.id}` : who.id;
  const resource = who.device ? `${host}/devices/${who.device}/modules/${who.id}` : `${host}/devices/${who.id}`;
  const client = mqtt.connect({
    protocol: 'mqtts', host, port: 8883, protocolVersion: 4, clean: true, reconnectPeriod: 0, clientId: id,
    username: `${host}/${id}/?api-version=2021-04-12`, password: sas(who.cs, resource), ...more,
  });
  const gone = new Promise((resolve) => client.once('close', resolve));
  t.defer(() => client.endAsync(true));
  await within(new Promise((resolve, reject) => {
    client.once('connect', resolve);
    client.on('error', reject);
    gone.then(() => reject(new Error('closed before CONNACK')));
  }), 15_000, 'CONNACK');
  client.on('error', () => {});
  return { client, gone: () => within(gone, 15_000, 'the end of the connection') };
}

test('MQTT 3.1.1: a message of more than 256 KiB ends the connection', async (t) => {
  const d = await device(t);
  const { client, gone } = await dial(t, d);
  client.publish(`devices/${d.id}/messages/events/`, 'x'.repeat(256 * 1024 + 1), { qos: 1 });
  await gone();
  assert.equal(count(d, 'telemetry'), 0);
});

test("MQTT 3.1.1: publishing on another device's topic ends the connection", async (t) => {
  const d = await device(t);
  const other = await device(t);
  const { client, gone } = await dial(t, d);
  client.publish(`devices/${other.id}/messages/events/`, '1', { qos: 1 });
  await gone();
  assert.equal(count(other, 'telemetry'), 0);
});

test('MQTT 3.1.1: an unknown topic ends the connection, and the event says why', async (t) => {
  const d = await device(t);
  const { client, gone } = await dial(t, d);
  client.publish('hello/world', '1', { qos: 1 });
  await gone();
  await event(d, 'disconnected', (e) => e.detail.includes('hello/world')); // which the device is not told
});

test('MQTT 3.1.1: QoS 2 ends the connection', async (t) => {
  const d = await device(t);
  const { client, gone } = await dial(t, d);
  client.publish(`devices/${d.id}/messages/events/`, '1', { qos: 2 });
  await gone();
});

test('MQTT 3.1.1: subscribing to everything ends the connection', async (t) => {
  const { client, gone } = await dial(t, await device(t));
  client.subscribe('#');
  await gone();
});

test('MQTT 3.1.1: a twin is read by topic', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  await client.subscribeAsync('$iothub/twin/res/#');
  const got = new Promise((resolve) => client.once('message', (topic, body) => resolve([topic, JSON.parse(body)])));
  client.publish('$iothub/twin/GET/?$rid=17', '');
  const [topic, body] = await within(got, 15_000, 'twin');
  assert.equal(topic, '$iothub/twin/res/200/?$rid=17');
  assert.deepEqual(body, { desired: { $version: 1 }, reported: { $version: 1 } });
});

test('MQTT 3.1.1: a reported patch is answered 204 with the version', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const { client } = await dial(t, m);
  await client.subscribeAsync('$iothub/twin/res/#');
  const got = new Promise((resolve) => client.once('message', (topic, body) => resolve([topic, body.length])));
  client.publish('$iothub/twin/PATCH/properties/reported/?$rid=a1', '{"on":true}');
  assert.deepEqual(await within(got, 15_000, 'answer'), ['$iothub/twin/res/204/?$rid=a1&$version=2', 0]);
});

test('MQTT 3.1.1: the bag is decoded, with and without values', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  await client.publishAsync(`devices/${d.id}/messages/events/%24.mid=m-1&a=1%2B1&empty=&b%20c=d%2Fe`, '1', { qos: 1 });
  const e = await event(d, 'telemetry');
  assert.equal(e.system['message-id'], 'm-1');
  assert.deepEqual(e.properties, { a: '1+1', empty: '', 'b c': 'd/e' });
});

test('MQTT 3.1.1: a retained message is telemetry that says so', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  await client.publishAsync(`devices/${d.id}/messages/events/`, '1', { qos: 1, retain: true });
  assert.equal((await event(d, 'telemetry')).properties['mqtt-retain'], 'true');
});

test('MQTT 3.1.1: a will is sent when the device is gone without goodbye', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d, { will: { topic: `devices/${d.id}/messages/events/`, payload: '"bye"', qos: 1 } });
  client.stream.destroy();
  const e = await event(d, 'telemetry');
  assert.equal(e.body, 'bye');
  assert.equal(e.properties['iothub-MessageType'], 'Will');
});

test('MQTT 3.1.1: subscriptions are there again for a client that did not clean them', async (t) => {
  const d = await device(t);
  const first = await dial(t, d, { clean: false });
  await first.client.subscribeAsync('$iothub/twin/res/#');
  await first.client.endAsync();
  const { client } = await dial(t, d, { clean: false });
  const got = new Promise((resolve) => client.once('message', (topic) => resolve(topic)));
  client.publish('$iothub/twin/GET/?$rid=1', '');
  assert.equal(await within(got, 15_000, 'twin'), '$iothub/twin/res/200/?$rid=1');
});
