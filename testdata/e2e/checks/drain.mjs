// SIGTERM while every protocol has something open: all of it ends properly, and the process exits with 0.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';

import { WebSocket } from 'ws';

import { check, eventually, withTimeout } from '../lib/checks.mjs';
import { run, runOK } from '../lib/command.mjs';
import { deadline, echoClient, healthClient, received } from '../lib/grpc.mjs';
import { start } from '../lib/server.mjs';

const endTimeout = 15_000;
const streamed = 15; // Messages of the server stream, 200 ms apart: it ends after the slow request.

export async function checkDrain(binary, tls) {
  const server = await start(binary, { tls, args: ['--drain-delay', '1s', '--drain-timeout', '15s'] });
  const where = server.secure ? 'over TLS' : 'in plaintext';
  const open = await openAll(server);
  try {
    await check(`drain ${where}: everything is open before SIGTERM`, async () => {
      await Promise.all([once(open.ws, 'open'), open.bidi.first, open.watch.first]);
      await eventually('all are counted', async () => {
        const [http1, grpc, websocket] = await Promise.all(['http1', 'grpc', 'websocket'].map((p) => server.active(p)));
        return http1 === 2 && grpc === 2 && websocket === 1;
      });
    });

    server.terminate();
    await checkAnnounced(server, open, where);
    await checkEnds(server, open, where);
  } finally {
    open.close();
    await server.kill();
  }
}

// openAll opens one thing of each kind and says how each ends.
async function openAll(server) {
  const idle = await server.connect();
  idle.write(`GET /livez HTTP/1.1\r\nHost: ${server.address}\r\n\r\n`);
  await once(idle, 'data');
  const idleEnded = once(idle, 'end');

  const slow = run('curl', '-sSk', '--http1.1', '-w', ' %{http_code}', `${server.url}/echo?sleep=4s`);

  const ws = new WebSocket(`${server.wsURL}/ws`, { ca: server.certificate });
  const wsClosed = once(ws, 'close');

  const echo = echoClient(server);
  const stream = received(
    echo.ServerStream({ message: 'tick', repeat: streamed, interval: { nanos: 200e6 } }, { deadline: deadline() }),
  );
  const bidi = conversation(echo.BidiStream({ deadline: deadline() }));

  const health = healthClient(server);
  const watch = watchHealth(health);
  for (const promise of [idleEnded, wsClosed, stream, bidi.first, bidi.ended, watch.first, watch.notServing]) {
    promise.catch(() => {}); // Reported by the check that waits for it.
  }

  return {
    idleEnded, slow, ws, wsClosed, stream, bidi, watch,
    close() {
      idle.destroy();
      ws.terminate();
      echo.close();
      health.close();
    },
  };
}

// conversation says one thing on a bidirectional stream and leaves it open.
function conversation(call) {
  const answer = once(call, 'data');
  call.write({ message: 'before the drain' });
  const ended = new Promise((resolve, reject) => {
    call.on('error', reject);
    call.on('end', resolve);
  });
  return { call, first: answer, ended };
}

// watchHealth watches the server's health until it is not serving.
function watchHealth(client) {
  const call = client.Watch({ service: '' }, { deadline: deadline() });
  const first = once(call, 'data');
  const notServing = new Promise((resolve, reject) => {
    call.on('data', (message) => message.status === 'NOT_SERVING' && resolve());
    call.on('error', reject);
  });
  return { call, first, notServing };
}

async function checkAnnounced(server, open, where) {
  await check(`drain ${where}: it is announced while connections are still served`, async () => {
    await eventually('/readyz turns', async () => (await server.admin('/readyz')).status === 503);
    assert.equal((await server.admin('/livez')).status, 200, '/livez');
    await runOK('curl', '-sSkf', `${server.url}/echo`);
    await withTimeout(open.watch.notServing, endTimeout, 'the health service turns');
    open.watch.call.cancel();
  });
}

async function checkEnds(server, open, where) {
  await check(`drain ${where}: an idle keep-alive connection is closed`, () =>
    withTimeout(open.idleEnded, endTimeout, 'the end'));

  await check(`drain ${where}: ws is closed by 1001`, async () => {
    const [code] = await withTimeout(open.wsClosed, endTimeout, 'close');
    assert.equal(code, 1001);
  });

  await check(`drain ${where}: a grpc-js stream goes on and ends with OK`, async () => {
    const answer = once(open.bidi.call, 'data');
    open.bidi.call.write({ message: 'in the drain' });
    assert.equal((await withTimeout(answer, endTimeout, 'the answer'))[0].message, 'in the drain');
    open.bidi.call.end();
    open.bidi.call.resume();
    await withTimeout(open.bidi.ended, endTimeout, 'the end');
  });

  await check(`drain ${where}: the grpc-js server stream gets all its messages`, async () => {
    assert.equal((await withTimeout(open.stream, endTimeout, 'the end')).length, streamed);
  });

  await check(`drain ${where}: the slow request is answered`, async () => {
    const { code, stdout, stderr } = await withTimeout(open.slow, endTimeout, 'the answer');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /"path":\s*"\/echo"[^]* 200$/);
  });

  await check(`drain ${where}: the exit code is 0 and the port is closed`, async () => {
    assert.deepEqual(await server.waitExit(), { code: 0, signal: null }, server.output);
    const socket = net.connect({ host: server.host, port: server.port });
    const [err] = await once(socket, 'error');
    assert.equal(err.code, 'ECONNREFUSED');
  });
}
