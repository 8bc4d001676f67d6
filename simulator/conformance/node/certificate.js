// X.509 certificates for devices: Node.js reads them and makes none. A small writer of DER (ITU-T X.690) for version 3
// certificates with P-256 keys (RFC 5280, RFC 5480).
'use strict';

const crypto = require('node:crypto');

function der(tag, ...parts) {
  const body = Buffer.concat(parts);
  const n = body.length;
  const length = n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

const sequence = (...parts) => der(0x30, ...parts);
const oid = (...bytes) => der(0x06, Buffer.from(bytes));
const ecdsaWithSHA256 = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));
const commonName = (text) => sequence(der(0x31, sequence(oid(0x55, 0x04, 0x03), der(0x0c, Buffer.from(text)))));
const time = (date) => der(0x18, Buffer.from(date.toISOString().replace(/[-:T]|\.\d+/g, ''))); // GeneralizedTime

// basicConstraints is critical, with CA true or absent.
const basicConstraints = (ca) => sequence(oid(0x55, 0x1d, 0x13), der(0x01, Buffer.from([0xff])),
  der(0x04, ca ? sequence(der(0x01, Buffer.from([0xff]))) : sequence()));

// certificate makes one for a common name, signed by an issuer ({name, privateKey}) or by itself. It answers PEM texts, SHA-1 and
// SHA-256 thumbprints, and what makes it an issuer of others.
function certificate(name, { issuer, ca = false, days = 1 } = {}) {
  const { publicKey, privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const by = issuer ?? { name, privateKey };
  const serial = crypto.randomBytes(8);
  serial[0] = (serial[0] & 0x7f) | 0x40; // a positive number in its shortest form
  const now = Date.now();
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, serial),
    ecdsaWithSHA256,
    commonName(by.name),
    sequence(time(new Date(now - 3_600_000 + Math.min(days, 0) * 86_400_000)), time(new Date(now + days * 86_400_000))),
    commonName(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(basicConstraints(ca))),
  );
  const signature = crypto.sign('sha256', body, by.privateKey);
  const raw = sequence(body, ecdsaWithSHA256, der(0x03, Buffer.from([0]), signature));
  const thumbprint = (hash) => crypto.createHash(hash).update(raw).digest('hex').toUpperCase();
  return {
    name, privateKey,
    cert: `-----BEGIN CERTIFICATE-----\n${raw.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    sha1: thumbprint('sha1'),
    sha256: thumbprint('sha256'),
  };
}

module.exports = { certificate };
