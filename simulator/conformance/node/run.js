// node --require ./redirect.cjs run.js [part of a name]: all cases against the hub that the environment names.
// node run.js --list: the names of all cases, which cases.txt holds for the support table.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const suite = require('./suite');
const { watch } = require('./hub');

const folder = path.join(__dirname, 'cases');
for (const file of fs.readdirSync(folder).sort()) require(path.join(folder, file));

if (process.argv[2] === '--list') {
  for (const name of suite.names()) console.log(name);
} else {
  process.on('unhandledRejection', (e) => {
    console.log('FAIL a rejection that nobody handles:', e?.stack ?? e);
    process.exitCode = 1;
  });
  const listed = fs.readFileSync(path.join(__dirname, 'cases.txt'), 'utf8');
  if (listed !== suite.names().join('\n') + '\n') {
    console.log('FAIL cases.txt is stale: in simulator/conformance/node, node run.js --list >cases.txt, then go generate ./simulator/conformance');
    process.exitCode = 1;
  }
  watch().then(() => suite.run(process.argv[2])).then((failed) => {
    if (failed) process.exitCode = 1;
    // Everything is closed, so the process ends by itself; what still holds it is a failure of its own.
    setTimeout(() => {
      console.error('conformance: still open:', process.getActiveResourcesInfo().join(', '));
      process.exit(1);
    }, 10_000).unref();
  });
}
