'use strict';

const assert = require('node:assert/strict');
const { test } = require('../suite');
const { service, name, device, module: addModule, fails, rest, open, Mqtt, ways } = require('../hub');

const call = (more) => ({ methodName: 'echo', payload: null, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 0, ...more });

// ready opens a client that answers, and waits until the hub knows that it takes methods.
async function ready(t, who, transport, methods) {
  const client = await open(t, who, transport);
  const on = who.device ? 'onMethod' : 'onDeviceMethod';
  for (const [method, answer] of Object.entries(methods)) client[on](method, answer);
  const target = who.device ? [who.device, who.id] : [who.id];
  await service.invokeDeviceMethod(...target, call({ methodName: Object.keys(methods)[0], connectTimeoutInSeconds: 10 }));
  return client;
}

const echo = (request, response) => response.send(200, request.payload);

for (const [way, transport] of ways) {
  for (const kind of ['device', 'module']) {
    test(`methods: a ${kind} answers (${way})`, async (t) => {
      const d = await device(t);
      const who = kind === 'module' ? await addModule(t, d) : d;
      await ready(t, who, transport, { echo });
      const target = kind === 'module' ? [d.id, who.id] : [d.id];
      const payload = { list: [1, 'zwei', null, { drei: 3.5 }], text: 'ü€😀' };
      const { result } = await service.invokeDeviceMethod(...target, call({ payload }));
      assert.deepEqual(result, { status: 200, payload });
    });
  }
}

test("methods: the device's status and payload are the caller's", async (t) => {
  const d = await device(t);
  await ready(t, d, Mqtt, { echo, refuse: (_, response) => response.send(418, { why: 'teapot' }) });
  const { result } = await service.invokeDeviceMethod(d.id, call({ methodName: 'refuse' }));
  assert.deepEqual(result, { status: 418, payload: { why: 'teapot' } });
});

test('methods: a payload of null and one of a string', async (t) => {
  const d = await device(t);
  await ready(t, d, Mqtt, { echo });
  for (const payload of [null, 'text', 0, false, []]) {
    const { result } = await service.invokeDeviceMethod(d.id, call({ payload }));
    assert.deepEqual(result.payload, payload);
  }
});

test('methods: an offline device is refused with DeviceNotOnline', async (t) => {
  const d = await device(t);
  await fails(service.invokeDeviceMethod(d.id, call()));
  const got = await rest('POST', `/twins/${d.id}/methods`, { body: call() });
  assert.equal(got.status, 404);
  assert.equal(JSON.parse(got.body.Message).errorCode, 404103);
});

test('methods: an unknown device is DeviceNotFoundError', async () => {
  await fails(service.invokeDeviceMethod(name('nobody'), call()), 'DeviceNotFoundError');
});

test('methods: a device that does not answer is a timeout', async (t) => {
  const d = await device(t);
  await ready(t, d, Mqtt, { echo, silent: () => {} });
  await fails(service.invokeDeviceMethod(d.id, call({ methodName: 'silent', responseTimeoutInSeconds: 5 })), 'GatewayTimeoutError');
});

test('methods: the connect timeout waits for a device that comes', async (t) => {
  const d = await device(t);
  const answer = service.invokeDeviceMethod(d.id, call({ connectTimeoutInSeconds: 20, responseTimeoutInSeconds: 30, payload: 1 }));
  const client = await open(t, d);
  client.onDeviceMethod('echo', echo);
  assert.deepEqual((await answer).result, { status: 200, payload: 1 });
});

test('methods: a response timeout below 5 s is ArgumentError', async (t) => {
  const d = await device(t);
  await fails(service.invokeDeviceMethod(d.id, call({ responseTimeoutInSeconds: 1 })), 'ArgumentError');
});

test('methods: a payload of 128 KiB is taken and a larger one refused', async (t) => {
  const d = await device(t);
  await ready(t, d, Mqtt, { echo: (request, response) => response.send(200, request.payload?.length ?? null) });
  const { result } = await service.invokeDeviceMethod(d.id, call({ payload: 'x'.repeat(100_000) }));
  assert.equal(result.payload, 100_000);
  await fails(service.invokeDeviceMethod(d.id, call({ payload: 'x'.repeat(131_073) })));
});

test('methods: ten calls at once are answered each with its own', async (t) => {
  const d = await device(t);
  await ready(t, d, Mqtt, { echo });
  const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => service.invokeDeviceMethod(d.id, call({ payload: { n } }))));
  assert.deepEqual(answers.map((a) => a.result.payload.n), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('methods: names with dots and dashes', async (t) => {
  const d = await device(t);
  await ready(t, d, Mqtt, { 'fan.set-speed_2': echo });
  const { result } = await service.invokeDeviceMethod(d.id, call({ methodName: 'fan.set-speed_2', payload: 2 }));
  assert.equal(result.payload, 2);
});
