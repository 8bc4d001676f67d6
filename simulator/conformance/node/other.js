// Further hubs, for cases that need one with other flags.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const redirect = require('./redirect.cjs');
const { within } = require('./suite');

const program = process.env.TWINBAY_SIM ?? path.join(__dirname, '..', '..', '..', 'bin', 'twinbay-sim');

let serial = 0;

// start starts twinbay-sim serve with more flags. It answers the hub's environment (HUB_CS, HUB_HOST …), and ends the hub with
// the case. All hubs share the first one's certificate authority, which is the one that this process trusts.
async function start(t, ...flags) {
  serial++;
  const name = `other-${serial}.twinbay.test`;
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'twinbay-'));
  const envFile = path.join(folder, 'hub.env');
  const child = spawn(program, [
    'serve', '--dir', path.dirname(process.env.CA_FILE), '--host-name', name, '--mqtt-port', '0', '--https-port', '0', '--no-rig',
    '--env-file', envFile, ...flags,
  ], { stdio: ['ignore', 'pipe', 'pipe'] });
  const gone = new Promise((resolve) => child.once('exit', resolve));
  t.defer(async () => {
    child.kill('SIGTERM');
    await gone;
    fs.rmSync(folder, { recursive: true });
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text) => { said += text; });
  await within(new Promise((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text) => { if (text.includes('serves MQTT')) resolve(); });
    gone.then((code) => reject(new Error(`twinbay-sim ended with ${code}: ${said}`)));
  }), 20_000, 'twinbay-sim serve');
  const env = {};
  for (const [, key, value] of fs.readFileSync(envFile, 'utf8').matchAll(/^(\w+)='(.*)'$/gm)) env[key] = value;
  redirect.add(env.HUB_HOST, env.HUB_IP, env.HTTPS_PORT, env.MQTT_PORT);
  return { ...env, child };
}

module.exports = { start };
