// What cases need of the hub: identities of their own, SDK clients that close with the case, and the hub's events.
'use strict';

const crypto = require('node:crypto');
const https = require('node:https');
const util = require('node:util');
const iothub = require('azure-iothub');
const { Client, ModuleClient, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { Http } = require('azure-iot-device-http');
const { ConnectionString, SharedAccessSignature } = require('azure-iot-common');
const { atEnd, within } = require('./suite');

const owner = process.env.HUB_CS ?? 'HostName=none;SharedAccessKeyName=none;SharedAccessKey=bm9uZQ==';
const host = ConnectionString.parse(owner).HostName;
const registry = iothub.Registry.fromConnectionString(owner);
const service = iothub.Client.fromConnectionString(owner);
const jobs = iothub.JobClient.fromConnectionString(owner);

const agent = new https.Agent({ keepAlive: true });
atEnd(() => agent.destroy());

let serial = 0;

// name is a fresh id; the prefix says which case left it.
function name(prefix = 'd') {
  serial++;
  return `${prefix}-${process.pid}-${serial}`;
}

// ways are the two ways of a device to MQTT.
const ways = [['MQTT', Mqtt], ['MQTT over WebSocket', MqttWs]];

// sas is a token of a policy or an identity for a resource.
function sas(cs, resource, seconds = 3600) {
  const c = ConnectionString.parse(cs);
  const expiry = Math.floor(Date.now() / 1000) + seconds;
  return SharedAccessSignature.create(resource, c.SharedAccessKeyName, c.SharedAccessKey, expiry).toString();
}

// rest makes a request that no SDK makes. It answers {status, headers, body}, the body parsed where it is JSON.
function rest(method, path, { body, headers = {}, cs = owner, token } = {}) {
  const c = ConnectionString.parse(cs);
  const text = body === undefined || Buffer.isBuffer(body) || typeof body === 'string' ? body : JSON.stringify(body);
  const sr = c.DeviceId ? `${c.HostName}/devices/${encodeURIComponent(c.DeviceId)}` : c.HostName;
  return new Promise((resolve, reject) => {
    const request = https.request(
      {
        agent: c.HostName === host ? agent : undefined,
        host: c.HostName,
        method,
        path: path.includes('api-version') || path.startsWith('/_sim') ? path : `${path}${path.includes('?') ? '&' : '?'}api-version=2021-04-12`,
        headers: {
          Authorization: token ?? sas(cs, sr),
          ...(text === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) }),
          ...headers,
        },
      },
      (response) => {
        const chunks = [];
        response.on('data', (b) => chunks.push(b));
        response.on('end', () => {
          let body = Buffer.concat(chunks).toString();
          if (/json/.test(response.headers['content-type'] ?? '')) body = JSON.parse(body);
          resolve({ status: response.statusCode, headers: response.headers, body });
        });
        response.on('error', reject);
      },
    );
    request.on('error', reject);
    request.end(text);
  });
}

// device makes a device that is removed with the case and answers {id, cs, key, identity}.
async function device(t, more = {}) {
  const id = more.deviceId ?? name();
  const { responseBody: identity } = await registry.create({ deviceId: id, ...more });
  t.defer(() => registry.delete(id).catch((e) => { if (e.name !== 'DeviceNotFoundError') throw e; }));
  const key = identity.authentication.symmetricKey?.primaryKey;
  return { id, key, identity, cs: `HostName=${host};DeviceId=${id};SharedAccessKey=${key}` };
}

// module makes a module identity of a device and answers {id, device, key, cs, identity}.
async function module_(t, d, id = name('m')) {
  await registry.addModule({ deviceId: d.id, moduleId: id });
  const { responseBody: identity } = await registry.getModule(d.id, id);
  const key = identity.authentication.symmetricKey.primaryKey;
  return { id, device: d.id, key, identity, cs: `HostName=${host};DeviceId=${d.id};ModuleId=${id};SharedAccessKey=${key}` };
}

// open opens an SDK client of a device or module; transport is Mqtt unless said otherwise.
async function open(t, who, transport = Mqtt, prepare = (c) => c) {
  const of = who.device ? ModuleClient : Client;
  const client = prepare(of.fromConnectionString(who.cs, transport)) ?? undefined;
  keep(t, client);
  await client.open();
  return client;
}

// keep closes a client with the case. An error event that nobody hears would end the process.
function keep(t, client) {
  client.on('error', () => {});
  t.defer(() => client.close().catch(() => {}));
  return client;
}

// The hub's events, by the simulator's stream: no SDK for Node.js reads telemetry without AMQP.
const events = { past: [], waiting: new Set(), opening: undefined };

function watch() {
  events.opening ??= new Promise((resolve, reject) => {
    const request = https.request({ host, path: '/_sim/events', headers: { Authorization: sas(owner, host) } }, (response) => {
      if (response.statusCode !== 200) return reject(new Error(`/_sim/events answers ${response.statusCode}`));
      let rest = '';
      response.setEncoding('utf8');
      response.on('data', (text) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        for (const line of lines) heard(JSON.parse(line));
      });
      response.on('error', () => {}); // the end of the run
      resolve();
    });
    request.on('error', reject);
    request.end();
    atEnd(() => request.destroy());
  });
  return events.opening;
}

function heard(event) {
  events.past.push(event);
  for (const w of events.waiting) w(event);
}

// event waits for an event of a device or module, also one that has been already. fits says which.
async function event(who, kind, fits = () => true, ms = 15_000) {
  const [deviceId, moduleId] = who.device ? [who.device, who.id] : [who.id, undefined];
  const is = (e) => e.kind === kind && e.deviceId === deviceId && e.moduleId === moduleId && fits(e);
  const old = events.past.find(is);
  if (old) return old;
  let listener;
  const found = new Promise((resolve) => {
    listener = (e) => { if (is(e)) resolve(e); };
    events.waiting.add(listener);
  });
  try {
    return await within(found, ms, `event ${kind} of ${deviceId}${moduleId ? '/' + moduleId : ''}`);
  } finally {
    events.waiting.delete(listener);
  }
}

// count is how many such events have been.
function count(who, kind) {
  const [deviceId, moduleId] = who.device ? [who.device, who.id] : [who.id, undefined];
  return events.past.filter((e) => e.kind === kind && e.deviceId === deviceId && e.moduleId === moduleId).length;
}

// once waits for one call of an emitter's event and answers its first argument.
function once(emitter, what, fits = () => true, ms = 15_000) {
  const got = new Promise((resolve) => {
    const listener = (x) => {
      if (!fits(x)) return;
      emitter.removeListener(what, listener);
      resolve(x);
    };
    emitter.on(what, listener);
  });
  return within(got, ms, what);
}

// listen reads a client's twin and answers it once the hub sends desired changes. The SDK subscribes on the first listener
// and tells nobody when that is done; what it sends behind SUBSCRIBE is answered behind it.
async function listen(client) {
  const twin = await client.getTwin();
  twin.on('properties.desired', () => {});
  await new Promise((resolve, reject) => twin.get((e) => (e ? reject(e) : resolve())));
  return twin;
}

// report sends reported properties and waits for the hub's answer.
function report(twin, patch) {
  return new Promise((resolve, reject) => twin.properties.reported.update(patch, (e) => (e ? reject(e) : resolve())));
}

// fails waits for a promise to reject and answers the error; name is the SDK's class.
async function fails(promise, errorName) {
  let value;
  try {
    value = await promise;
  } catch (e) {
    if (errorName && e.name !== errorName) {
      throw new Error(`rejects with ${e.name} (${e.message}), want ${errorName}`, { cause: e });
    }
    return e;
  }
  throw new Error(`resolves with ${util.inspect(value, { depth: 1 }).slice(0, 500)}, want ${errorName ?? 'an error'}`);
}

const guid = () => crypto.randomUUID();

module.exports = {
  owner, host, registry, service, jobs, iothub,
  Client, ModuleClient, Message, Mqtt, MqttWs, Http, ways,
  name, sas, rest, device, module: module_, open, keep, watch, event, count, once, listen, report, fails, guid, within,
};
