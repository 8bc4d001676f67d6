// The runner: named cases, many at a time, a line each.
'use strict';

const patience = 60_000; // milliseconds for one case
const together = 24; // cases at a time: they mostly wait

const cases = [];
const closers = [];

// test adds a case. Names are `topic: what holds`; docs/support.md refers to them.
function test(name, run) {
  if (cases.some((c) => c.name === name)) throw new Error(`two cases are named ${JSON.stringify(name)}`);
  cases.push({ name, run });
}

// atEnd adds something to close after the last case.
function atEnd(close) {
  closers.push(close);
}

async function within(promise, ms, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Case is what a case's function gets: it closes what was opened for the case, the newest first.
class Case {
  constructor(name) {
    this.name = name;
    this.closers = [];
  }

  defer(close) {
    this.closers.push(close);
  }

  async close() {
    for (const close of this.closers.reverse()) await within(Promise.resolve(close()), 10_000, 'close');
  }
}

async function runOne(c) {
  const t = new Case(c.name);
  const start = process.hrtime.bigint();
  let failure;
  try {
    await within(Promise.resolve(c.run(t)), patience, 'the case');
  } catch (e) {
    failure = e;
  }
  try {
    await t.close();
  } catch (e) {
    failure ??= e;
  }
  const ms = Number((process.hrtime.bigint() - start) / 1_000_000n);
  console.log(`${failure ? 'FAIL' : 'ok  '} ${c.name} (${ms} ms)`);
  if (failure) console.log(String(failure?.stack ?? failure).replace(/^/gm, '     '));
  return failure;
}

// run runs all cases whose name holds `only` and returns how many failed. The last line it prints is the summary.
async function run(only = '') {
  const queue = cases.filter((c) => c.name.includes(only));
  let passed = 0;
  let failed = 0;
  const worker = async () => {
    for (let c = queue.shift(); c; c = queue.shift()) {
      if (await runOne(c)) failed++;
      else passed++;
    }
  };
  await Promise.all(Array.from({ length: together }, worker));
  for (const close of closers.reverse()) await close();
  if (passed + failed === 0) failed = 1; // a filter that fits nothing is no success
  console.log(`${passed} passed, ${failed} failed`);
  return failed;
}

function names() {
  return cases.map((c) => c.name);
}

module.exports = { test, atEnd, run, names, within };
