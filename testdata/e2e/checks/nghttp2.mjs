// nghttp and h2load: the frames one client sees, and thousands of requests of which none may be lost.

import assert from 'node:assert/strict';

import { check } from '../lib/checks.mjs';
import { runOK } from '../lib/command.mjs';

const requests = 2000;

export async function checkNghttp2(server) {
  const where = server.secure ? 'over TLS' : 'in plaintext';

  await check(`nghttp sees one SETTINGS and one ACK ${where}`, async () => {
    const frames = await runOK('nghttp', '-nvy', `${server.url}/echo`);
    assert.match(frames, /:status: 200/);
    const settings = [...frames.matchAll(/recv SETTINGS frame <length=\d+, flags=0x(\d\d), stream_id=0>/g)];
    const acks = settings.filter((match) => match[1] === '01');
    assert.equal(settings.length - acks.length, 1, `SETTINGS frames\n${frames}`);
    assert.equal(acks.length, 1, `SETTINGS acknowledgements\n${frames}`);
    assert.doesNotMatch(frames, /recv (GOAWAY|RST_STREAM)/);
  });

  await check(`nghttp with five requests on one connection ${where}`, async () => {
    const before = await server.accepted('http2');
    const frames = await runOK('nghttp', '-nvy', '-m', '5', `${server.url}/echo`);
    assert.equal(frames.match(/:status: 200/g)?.length, 5);
    assert.equal(await server.accepted('http2'), before + 1, 'one HTTP/2 connection is counted');
  });

  const loads = [
    { name: 'h2load', protocol: 'http2', clients: 1, args: [] },
    { name: 'h2load -c 50', protocol: 'http2', clients: 50, args: [] },
    { name: 'h2load -c 50 -m 10', protocol: 'http2', clients: 50, args: ['-m', '10'] },
    { name: 'h2load --h1 -c 50', protocol: 'http1', clients: 50, args: ['--h1'] },
  ];
  for (const load of loads) {
    await check(`${load.name}: ${requests} of ${requests} ${where}`, async () => {
      const before = await server.accepted(load.protocol);
      const report = await runOK('h2load', '-n', `${requests}`, '-c', `${load.clients}`, ...load.args, `${server.url}/echo`);
      const n = requests;
      assert.ok(
        report.includes(`${n} total, ${n} started, ${n} done, ${n} succeeded, 0 failed, 0 errored, 0 timeout`) &&
          report.includes(`${n} 2xx, 0 3xx, 0 4xx, 0 5xx`),
        report,
      );
      assert.equal(await server.accepted(load.protocol), before + load.clients, 'every connection is counted once');
    });
  }
}
