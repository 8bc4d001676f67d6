'use strict';

// The MQTT 5 preview of IoT Hub (Microsoft Learn, "IoT Hub MQTT 5 support", api-version 2020-10-01-preview), spoken with
// MQTT.js: no SDK speaks it.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const mqtt = require('mqtt');
const { test } = require('../suite');
const { host, registry, service, device, module: addModule, event, count, within } = require('../hub');

function sign(who, id, at, expiry) {
  const text = `${host}\n${id}\n\n${at}\n${expiry}\n`;
  return crypto.createHmac('sha256', Buffer.from(who.key, 'base64')).update(text).digest();
}

function connect(t, who, { seconds = 3600, key, properties = {}, ...more } = {}) {
  const id = who.device ? `${who.device}/${who.id}` : who.id;
  const at = String(Date.now());
  const expiry = String(Date.now() + seconds * 1000);
  const client = mqtt.connect({
    protocol: 'mqtts', host, port: 8883, protocolVersion: 5, clean: true, reconnectPeriod: 0, clientId: id,
    properties: {
      authenticationMethod: 'SAS',
      authenticationData: sign(key ? { key } : who, id, at, expiry),
      userProperties: { 'api-version': '2020-10-01-preview', host, 'sas-at': at, 'sas-expiry': expiry },
      ...properties,
    },
    ...more,
  });
  t.defer(() => client.endAsync(true));
  return client;
}

// dial connects and answers the client and CONNACK.
async function dial(t, who, options) {
  const client = connect(t, who, options);
  const connack = await within(new Promise((resolve, reject) => {
    client.once('connect', resolve);
    client.on('error', reject);
    client.once('close', () => reject(new Error('closed before CONNACK')));
  }), 15_000, 'CONNACK');
  client.on('error', () => {});
  return { client, connack };
}

let rid = 0;

// ask publishes a request and waits for its answer.
function ask(client, topic, payload, userProperties) {
  const correlationData = Buffer.from(String(++rid));
  const got = new Promise((resolve) => {
    const listener = (on, body, packet) => {
      if (on !== '$iothub/responses' || !packet.properties?.correlationData?.equals(correlationData)) return;
      client.removeListener('message', listener);
      resolve({ status: packet.properties.userProperties?.status, body: body.length ? JSON.parse(body) : undefined, properties: packet.properties.userProperties });
    };
    client.on('message', listener);
  });
  client.publish(topic, payload, { qos: 0, properties: { correlationData, ...(userProperties ? { userProperties } : {}) } });
  return within(got, 15_000, `answer to ${topic}`);
}

test('MQTT 5: CONNACK says what the hub allows', async (t) => {
  const { connack } = await dial(t, await device(t));
  assert.equal(connack.reasonCode, 0);
  assert.equal(connack.properties.maximumQoS, 1);
  assert.equal(connack.properties.retainAvailable, false);
  assert.equal(connack.properties.maximumPacketSize, 262144);
  assert.equal(connack.properties.receiveMaximum, 16);
});

test('MQTT 5: telemetry of a device and a module', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  for (const who of [d, m]) {
    const { client } = await dial(t, who);
    await client.publishAsync('$iothub/telemetry', '{"t":1}', { qos: 1, properties: { contentType: 'application/json', userProperties: { 'message-id': 'm1', '@alarm': 'no' } } });
    const e = await event(who, 'telemetry');
    assert.deepEqual(e.body, { t: 1 });
    assert.equal(e.system['message-id'], 'm1');
    assert.equal(e.properties.alarm, 'no');
  }
});

test('MQTT 5: a wrong signature is refused', async (t) => {
  const d = await device(t);
  const client = connect(t, d, { key: Buffer.alloc(32, 9).toString('base64') });
  const e = await within(new Promise((resolve) => client.once('error', resolve)), 15_000, 'refusal');
  assert.equal(e.code, 135);
  assert.equal(count(d, 'connected'), 0);
});

test('MQTT 5: the twin is read', async (t) => {
  const d = await device(t);
  await registry.updateTwin(d.id, { properties: { desired: { a: 1 } } }, '*');
  const { client } = await dial(t, d);
  const got = await ask(client, '$iothub/twin/get', '');
  assert.equal(got.status, undefined);
  assert.equal(got.body.desired.a, 1);
});

test('MQTT 5: reported properties are answered with their version', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  const got = await ask(client, '$iothub/twin/patch/reported', '{"on":true}');
  assert.equal(got.status, undefined);
  assert.equal(got.properties.version, '2');
  const { responseBody: twin } = await registry.getTwin(d.id);
  assert.equal(twin.properties.reported.on, true);
});

test('MQTT 5: if-version that is no longer true is refused with 0104', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  await ask(client, '$iothub/twin/patch/reported', '{"a":1}');
  const got = await ask(client, '$iothub/twin/patch/reported', '{"a":2}', { 'if-version': '1' });
  assert.equal(got.status, '0104');
});

test('MQTT 5: a desired change arrives', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  await client.subscribeAsync('$iothub/twin/patch/desired', { qos: 0 });
  const got = new Promise((resolve) => client.once('message', (topic, body, packet) => resolve([topic, JSON.parse(body), packet.properties.userProperties.version])));
  await registry.updateTwin(d.id, { properties: { desired: { fan: 2 } } }, '*');
  const [topic, body, version] = await within(got, 15_000, 'patch');
  assert.equal(topic, '$iothub/twin/patch/desired');
  assert.equal(body.fan, 2);
  assert.equal(version, '2');
});

test('MQTT 5: a direct method is called and answered', async (t) => {
  const d = await device(t);
  const m = await addModule(t, d);
  const { client } = await dial(t, m);
  await client.subscribeAsync('$iothub/methods/+', { qos: 0 });
  client.once('message', (topic, body, packet) => {
    client.publish('$iothub/responses', JSON.stringify({ topic, got: JSON.parse(body) }), {
      qos: 0, properties: { correlationData: packet.properties.correlationData, userProperties: { 'response-code': '200' } },
    });
  });
  const { result } = await service.invokeDeviceMethod(d.id, m.id, { methodName: 'reset', payload: 5, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10 });
  assert.deepEqual(result, { status: 200, payload: { topic: '$iothub/methods/reset', got: 5 } });
});

test('MQTT 5: an undefined topic is refused in its PUBACK and the connection stays', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  await assert.rejects(client.publishAsync('no/such/topic', '1', { qos: 1 }), (e) => e.code === 131);
  await client.publishAsync('$iothub/telemetry', '1', { qos: 1 });
  await event(d, 'telemetry');
});

test('MQTT 5: a subscription with a wildcard is refused with 0xA2', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  const suback = new Promise((resolve) => client.on('packetreceive', (p) => { if (p.cmd === 'suback') resolve(p.granted); }));
  client.subscribe('#', () => {});
  assert.deepEqual(await within(suback, 15_000, 'SUBACK'), [0xa2]);
});

test('MQTT 5: a second connection is told that it took the session over', async (t) => {
  const d = await device(t);
  const { client } = await dial(t, d);
  const bye = new Promise((resolve) => client.on('disconnect', (p) => resolve(p.reasonCode)));
  await dial(t, d);
  assert.equal(await within(bye, 15_000, 'DISCONNECT'), 142);
});

test('MQTT 5: subscriptions survive for a client that asked for a session', async (t) => {
  const d = await device(t);
  const keep = { clean: false, properties: { sessionExpiryInterval: 3600 } };
  const first = await dial(t, d, keep);
  await first.client.subscribeAsync('$iothub/twin/patch/desired', { qos: 0 });
  await first.client.endAsync();
  const { client, connack } = await dial(t, d, keep);
  assert.equal(connack.sessionPresent, true);
  const got = new Promise((resolve) => client.once('message', (_, body) => resolve(JSON.parse(body))));
  await registry.updateTwin(d.id, { properties: { desired: { x: 1 } } }, '*');
  assert.equal((await within(got, 15_000, 'patch')).x, 1);
});
