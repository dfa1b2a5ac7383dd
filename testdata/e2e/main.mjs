// Starts muxserve twice, in plaintext and over TLS, and lets every client ask; then drains it under load. At last an operator
// makes mistakes and mends them behind HAProxy.
// Usage: node main.mjs BINARY

import assert from 'node:assert/strict';

import { checkCurl } from './checks/curl.mjs';
import { checkDrain } from './checks/drain.mjs';
import { checkExercise } from './checks/exercise.mjs';
import { checkGRPC } from './checks/grpc.mjs';
import { checkHTTP } from './checks/http.mjs';
import { checkMetrics } from './checks/metrics.mjs';
import { checkNghttp2 } from './checks/nghttp2.mjs';
import { checkWebSocket, readLimit } from './checks/websocket.mjs';
import { check, finish, group } from './lib/checks.mjs';
import { start } from './lib/server.mjs';

const binary = process.argv[2];
if (!binary) {
  console.error('usage: node main.mjs BINARY');
  process.exit(2);
}

for (const tls of ['off', 'self-signed']) {
  console.log(`# muxserve --tls ${tls}`);
  await group('every client', () => checkClients(tls));
  await group('the drain', () => checkDrain(binary, tls));
}
console.log('# an operator, two servers and HAProxy');
await group("the operator's exercise", () => checkExercise(binary));
process.exit(finish());

// checkClients lets every client ask one server. Of its errors only a server that does not start is left to its caller.
async function checkClients(tls) {
  const server = await start(binary, { tls, args: ['--ws-read-limit', String(readLimit), '--drain-delay', '0s'] });
  try {
    await check('the start says in one line what is served', () => {
      const lines = server.output.split('\n').filter((line) => line.includes('"msg":"serving"'));
      assert.equal(lines.length, 1, server.output);
      const [listener] = JSON.parse(lines[0]).listeners;
      assert.ok(server.url.endsWith(`//${listener.address}`), `${listener.address} is not that of ${server.url}`);
      assert.deepEqual(listener.protocols, ['http1', 'http2', 'grpc', 'websocket']);
      assert.equal(listener.tls, tls);
    });
    await checkCurl(server);
    await checkHTTP(server);
    await checkNghttp2(server);
    await checkWebSocket(server);
    await checkGRPC(server);
    await checkMetrics(server);
    await check('SIGTERM with nothing to wait for exits with 0', async () => {
      server.terminate();
      assert.deepEqual(await server.waitExit(), { code: 0, signal: null }, server.output);
    });
  } finally {
    await server.kill();
  }
}
