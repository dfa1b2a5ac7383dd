// curl: HTTP/1.1 with any method, HTTP/2 by prior knowledge and by ALPN.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';

import { check } from '../lib/checks.mjs';
import { runOK } from '../lib/command.mjs';

export async function checkCurl(server) {
  const where = server.secure ? 'over TLS' : 'in plaintext';

  for (const method of ['GET', 'PATCH', 'PROPFIND', 'GETAWAY']) {
    await check(`curl HTTP/1.1 ${method} ${where}`, async () => {
      const before = await server.accepted('http1');
      const echo = await curlEcho(server, '--http1.1', '-X', method);
      wantEcho(server, echo, { method, proto: 'HTTP/1.1', protocol: 'http1', alpn: 'http/1.1', body: 0 });
      assert.equal(await server.accepted('http1'), before + 1, 'one HTTP/1.1 connection is counted');
    });
  }

  await check(`curl HTTP/1.1 keeps its connection ${where}`, async () => {
    const text = await runOK('curl', '-sSk', '--http1.1', '-w', '\n', `${server.url}/echo?n=1`, `${server.url}/echo?n=2`);
    const ids = text.trim().split(/\n+/).map((line) => JSON.parse(line).conn_id);
    assert.equal(ids.length, 2);
    assert.equal(ids[0], ids[1]);
  });

  const http2 = server.secure ? '--http2' : '--http2-prior-knowledge';
  await check(`curl ${http2} GET ${where}`, async () => {
    const before = await server.accepted('http2');
    const echo = await curlEcho(server, http2);
    wantEcho(server, echo, { method: 'GET', proto: 'HTTP/2.0', protocol: 'http2', alpn: 'h2', body: 0 });
    assert.equal(await server.accepted('http2'), before + 1, 'one HTTP/2 connection is counted');
  });

  await check(`curl ${http2} POST of a large file ${where}`, async () => {
    const echo = await curlEcho(server, http2, '--data-binary', `@${server.binary}`);
    assert.equal(echo.method, 'POST');
    assert.equal(echo.proto, 'HTTP/2.0');
    assert.equal(echo.body_bytes, statSync(server.binary).size);
  });

  if (server.secure) {
    await check('curl verifies the certificate', async () => {
      await runOK('curl', '-sS', '--cacert', server.certificateFile, `${server.url}/echo`);
    });
    return;
  }

  await check('curl --http2 falls back to HTTP/1.1 in plaintext', async () => {
    const echo = await curlEcho(server, '--http2');
    wantEcho(server, echo, { method: 'GET', proto: 'HTTP/1.1', protocol: 'http1', body: 0 });
  });
}

async function curlEcho(server, ...args) {
  return JSON.parse(await runOK('curl', '-sSk', '--fail', ...args, `${server.url}/echo`));
}

function wantEcho(server, echo, want) {
  assert.equal(echo.method, want.method);
  assert.equal(echo.path, '/echo');
  assert.equal(echo.proto, want.proto);
  assert.equal(echo.protocol, want.protocol);
  assert.equal(echo.body_bytes, want.body);
  assert.match(echo.remote_addr, /^127\.0\.0\.1:\d+$/);
  assert.ok(echo.conn_id, 'conn_id is set');
  if (!server.secure) {
    assert.equal(echo.tls, null);
    return;
  }
  assert.equal(echo.tls.version, 'TLS 1.3');
  assert.equal(echo.tls.alpn, want.alpn);
}
