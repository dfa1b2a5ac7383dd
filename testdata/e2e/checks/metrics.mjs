// What /metrics says once all the other clients are gone.

import assert from 'node:assert/strict';

import { check, eventually } from '../lib/checks.mjs';
import { parse, sum } from '../lib/metrics.mjs';

const protocols = ['http1', 'http2', 'grpc', 'websocket'];

export async function checkMetrics(server) {
  await check('/metrics: no connection is left', () =>
    eventually('every active count falls to 0', async () => {
      const active = await Promise.all(protocols.map((protocol) => server.active(protocol)));
      if (active.some((n) => n !== 0)) throw new Error(`active ${protocols} are ${active}`);
      return true;
    }));

  await check('/metrics: every protocol was served and counted in bytes, and none refused', async () => {
    const samples = parse((await server.admin('/metrics')).body);
    for (const protocol of protocols) {
      assert.ok(sum(samples, 'mux_connections_accepted_total', { protocol }) > 0, `accepted ${protocol}`);
      assert.ok(sum(samples, 'mux_received_bytes_total', { protocol }) > 0, `bytes received on ${protocol}`);
      assert.ok(sum(samples, 'mux_sent_bytes_total', { protocol }) > 0, `bytes sent on ${protocol}`);
    }
    const rejected = samples.filter((s) => s.name === 'mux_connections_rejected_total' && s.value > 0);
    assert.deepEqual(rejected, []);
  });

  await check('/metrics: the phase is serving', async () => {
    assert.equal(await server.metric('mux_phase', { phase: 'serving' }), 1);
    assert.equal(await server.metric('mux_phase'), 1, 'only one phase holds');
  });

  await check('/servers, /connections and /health answer JSON', async () => {
    for (const path of ['/servers', '/connections', '/health']) {
      const { status, body } = await server.admin(path);
      assert.equal(status, 200, path);
      JSON.parse(body);
    }
  });
}
