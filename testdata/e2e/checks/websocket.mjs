// The ws client: echo of every kind of message, and an upgrade on a connection that served HTTP/1.1 before.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';

import { WebSocket } from 'ws';

import { check, eventually, withTimeout } from '../lib/checks.mjs';

const mebibyte = 1 << 20;
const closeTimeout = 5000; // A server that waits for the client to hang up is noticed.

// readLimit is the --ws-read-limit that the server under test runs with.
export const readLimit = 2 * mebibyte;

export async function checkWebSocket(server) {
  const where = server.secure ? 'over TLS' : 'in plaintext';

  const messages = [
    ['a text', 'one port, vier Protokolle, 四'],
    ['an empty text', ''],
    ['binary', randomBytes(1000)],
    ['1 MiB of text', 'é'.repeat(mebibyte / 2)],
    ['1 MiB of binary', randomBytes(mebibyte)],
  ];
  for (const [name, message] of messages) {
    await check(`ws echoes ${name} ${where}`, () => withSocket(server, (ws) => wantEcho(ws, message)));
  }

  await check(`ws echoes 1 MiB in 16 fragments ${where}`, () =>
    withSocket(server, async (ws) => {
      const whole = randomBytes(mebibyte);
      const answer = once(ws, 'message');
      for (let i = 0; i < 16; i++) {
        ws.send(whole.subarray((i * mebibyte) / 16, ((i + 1) * mebibyte) / 16), { fin: i === 15 });
      }
      const [data, binary] = await answer;
      assert.ok(binary && whole.equals(data));
    }));

  await check(`ws gets its ping answered ${where}`, () =>
    withSocket(server, async (ws) => {
      const pong = once(ws, 'pong');
      ws.ping('are you there');
      assert.equal((await pong)[0].toString(), 'are you there');
    }));

  await check(`ws closes by 1000 and is answered ${where}`, async () => {
    const ws = await open(server);
    ws.close(1000, 'done');
    assert.equal(await closeCode(ws), 1000);
  });

  await check(`ws text that is not UTF-8 is closed 1007 ${where}`, async () => {
    const ws = await open(server);
    ws.send(Buffer.from([0xc3, 0x28]), { binary: false });
    assert.equal(await closeCode(ws), 1007);
  });

  await check(`ws message over the limit is closed 1009 ${where}`, async () => {
    const ws = await open(server);
    ws.on('error', () => {}); // The rest of the message may meet a closed socket.
    ws.send(randomBytes(readLimit + 1));
    assert.equal(await closeCode(ws), 1009);
  });

  await check(`100 ws clients at once ${where}`, async () => {
    await none(server, 'websocket');
    const before = await server.accepted('websocket');
    const sockets = await Promise.all(Array.from({ length: 100 }, () => open(server)));
    assert.equal(await server.active('websocket'), 100, 'active WebSocket connections');
    await Promise.all(sockets.map((ws, i) => wantEcho(ws, `number ${i}`)));
    await Promise.all(sockets.map(close));
    assert.equal(await server.accepted('websocket'), before + 100, 'accepted WebSocket connections');
    await none(server, 'websocket');
  });

  await check(`ws as the second request of a keep-alive connection ${where}`, () => upgradeLater(server));
}

// open returns an open client.
async function open(server, options) {
  const ws = new WebSocket(`${server.wsURL}/ws`, { ca: server.certificate, perMessageDeflate: false, ...options });
  await once(ws, 'open');
  return ws;
}

async function close(ws) {
  ws.close(1000);
  await closeCode(ws);
}

// closeCode resolves with the code of the closing handshake once the server has closed the connection too.
async function closeCode(ws) {
  const [code] = await withTimeout(once(ws, 'close'), closeTimeout, 'the end of the connection');
  return code;
}

// none waits until the accounts of earlier clients are closed.
function none(server, protocol) {
  return eventually(`no ${protocol} connection is left`, async () => (await server.active(protocol)) === 0);
}

async function withSocket(server, use) {
  const ws = await open(server);
  try {
    await use(ws);
  } finally {
    await close(ws);
  }
}

async function wantEcho(ws, message) {
  const answer = once(ws, 'message');
  ws.send(message);
  const [data, binary] = await answer;
  assert.equal(binary, typeof message !== 'string', 'the kind of the message');
  assert.ok(Buffer.from(message).equals(data), `the same ${data.length} bytes`);
}

// upgradeLater asks /echo on a socket and lets ws upgrade the same socket then: the connection moves between pools.
async function upgradeLater(server) {
  await none(server, 'http1');
  const socket = await server.connect();
  const echo = await getOn(socket, server.address);
  assert.equal(echo.protocol, 'http1');
  assert.equal(await server.active('http1'), 1, 'HTTP/1.1 connections before the upgrade');

  const ws = await open(server, { createConnection: () => socket });
  try {
    await wantEcho(ws, 'upgraded');
    assert.equal(await server.active('http1'), 0, 'HTTP/1.1 connections after the upgrade');
    assert.equal(await server.active('websocket'), 1, 'WebSocket connections after the upgrade');
    const { body } = await server.admin('/connections?protocol=websocket');
    assert.ok(body.includes(String(echo.conn_id)), `connection ${echo.conn_id} is listed\n${body}`);
  } finally {
    await close(ws);
  }
}

// getOn sends GET /echo on a socket and reads exactly its answer, so that the socket can be used again.
async function getOn(socket, host) {
  socket.write(`GET /echo HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  let text = '';
  const read = (data) => (text += data);
  socket.on('data', read);
  const body = await eventually('the answer is whole', () => {
    const head = text.indexOf('\r\n\r\n');
    const length = Number(/^content-length: (\d+)\r$/im.exec(text)?.[1]);
    return head > 0 && text.length >= head + 4 + length && text.slice(head + 4);
  });
  socket.off('data', read);
  return JSON.parse(body);
}
