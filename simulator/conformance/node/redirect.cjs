// Preloaded by `node --require`: leads connections to a simulated hub's name to where that hub really listens.
//
// The official SDKs dial the host name of a connection string on the standard ports and can be told neither an address
// nor a port (azure-iothub, RestApiClient; azure-iot-device-mqtt, Mqtt). So what is changed is Node's own socket, below
// TLS: the name in SNI, in the certificate check and in HTTP's Host stays the hub's. No SDK is patched, and neither root nor an
// entry in /etc/hosts is needed.
'use strict';

const net = require('node:net');

// hubs maps a host name in lower case to {address, ports: {443: …, 8883: …}}.
const hubs = new Map();

function add(name, address, httpsPort, mqttPort) {
  hubs.set(name.toLowerCase(), { address, ports: { 443: Number(httpsPort), 8883: Number(mqttPort) } });
}

function lead(options) {
  const hub = hubs.get(String(options.host ?? '').toLowerCase());
  if (!hub) return options;
  const port = hub.ports[options.port];
  if (!port) throw new Error(`redirect: hub ${options.host} has no door at port ${options.port}`);
  return { ...options, host: hub.address, port };
}

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const first = args[0];
  if (Array.isArray(first)) {
    first[0] = lead(first[0]); // net.connect hands its arguments over as one array
  } else if (typeof first === 'object' && first !== null) {
    args[0] = lead(first);
  }
  return connect.apply(this, args);
};

const env = process.env;
if (env.HUB_HOST) add(env.HUB_HOST, env.HUB_IP, env.HTTPS_PORT, env.MQTT_PORT);

module.exports = { add };
