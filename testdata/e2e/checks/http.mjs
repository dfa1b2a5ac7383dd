// What every HTTP client may ask besides /echo, and node's own HTTP/2 client.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';

import { check } from '../lib/checks.mjs';
import { runOK } from '../lib/command.mjs';

export async function checkHTTP(server) {
  const where = server.secure ? 'over TLS' : 'in plaintext';

  for (const [path, status] of [['/', 200], ['/livez', 200], ['/readyz', 200], ['/nothing', 404]]) {
    await check(`GET ${path} is ${status} ${where}`, async () => {
      const got = await runOK('curl', '-sSk', '-o', '/dev/null', '-w', '%{http_code} %{content_type}', `${server.url}${path}`);
      const [code, type] = got.split(' ');
      assert.equal(Number(code), status);
      if (path === '/') assert.match(type, /^text\/html/);
    });
  }

  await check(`node:http2 with 100 streams at once ${where}`, async () => {
    const before = await server.accepted('http2');
    const session = http2.connect(server.url, { ca: server.certificate });
    try {
      const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => get(session, `/echo?n=${i}`)));
      for (const echo of answers) {
        assert.equal(echo.proto, 'HTTP/2.0');
        assert.equal(echo.conn_id, answers[0].conn_id);
      }
    } finally {
      session.close();
    }
    assert.equal(await server.accepted('http2'), before + 1, 'one HTTP/2 connection is counted');
  });

  await check(`node:http2 connects first and asks a second later ${where}`, async () => {
    const session = http2.connect(server.url, { ca: server.certificate });
    try {
      await once(session, 'remoteSettings');
      await once(session, 'localSettings');
      await new Promise((resolve, reject) => session.ping((err) => (err ? reject(err) : resolve())));
      // The pause is the point: the connection is recognised only by its first request.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      assert.equal((await get(session, '/echo')).protocol, 'http2');
    } finally {
      session.close();
    }
  });
}

async function get(session, path) {
  const stream = session.request({ ':path': path });
  let body = '';
  let status;
  stream.on('response', (headers) => (status = headers[':status']));
  stream.on('data', (data) => (body += data));
  await once(stream, 'end');
  assert.equal(status, 200);
  return JSON.parse(body);
}
