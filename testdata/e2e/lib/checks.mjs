// Runs the checks one after the other and keeps the score.

const checkTimeout = 60_000; // The longest check, 2,000 requests on one connection, takes a second or two.

let passed = 0;
let failed = 0;

// check runs one named check: it passes when fn (which may be asynchronous) returns, and fails when it throws.
export async function check(name, fn) {
  const started = performance.now();
  try {
    await withTimeout(Promise.resolve().then(fn), checkTimeout, name);
    passed++;
    console.log(`ok    ${name} (${Math.round(performance.now() - started)} ms)`);
  } catch (err) {
    fail(name, err);
  }
}

// group runs checks that share a server; what fn itself throws, such as a server that does not start, is one more failure.
export async function group(name, fn) {
  try {
    await fn();
  } catch (err) {
    fail(name, err);
  }
}

function fail(name, err) {
  failed++;
  const reason = err?.code === 'ERR_ASSERTION' ? err.message : (err?.stack ?? String(err));
  console.log(`FAIL  ${name}\n      ${reason.replaceAll('\n', '\n      ')}`);
}

// An error event or a rejection that nobody waits for is a failure too, and the checks after it go on.
process.on('uncaughtException', (err) => fail('an error outside of any check', err));

// finish prints the score and returns the exit code.
export function finish() {
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

// withTimeout rejects when promise has not settled after ms milliseconds.
export async function withTimeout(promise, ms, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing after ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const pollInterval = 20;
const pollTimeout = 10_000;

// eventually asks until probe returns something truthy, and returns that. An error of the last probe is the reason given.
export async function eventually(what, probe, timeout = pollTimeout) {
  const end = performance.now() + timeout;
  let last;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = undefined;
    } catch (err) {
      last = err;
    }
    if (performance.now() > end) {
      throw new Error(`${what}: not within ${timeout} ms${last ? ` (${last.message})` : ''}`);
    }
    await new Promise((resolve) => setTimeout(resolve, pollInterval));
  }
}
