// grpc-js: all four kinds of calls, the health service, and channels that connect long before their first call.

import assert from 'node:assert/strict';
import { once } from 'node:events';

import { check } from '../lib/checks.mjs';
import { deadline, echoClient, healthClient, received, status, unary, waitForReady } from '../lib/grpc.mjs';

export async function checkGRPC(server) {
  const where = server.secure ? 'over TLS' : 'in plaintext';

  await check(`grpc-js unary ${where}`, async () => {
    const before = await server.accepted('grpc');
    await withClient(echoClient(server), async (client) => {
      for (const message of ['hello', '', 'x'.repeat(1 << 20)]) {
        const response = await unary(client, 'Unary', { message });
        assert.equal(response.message, message);
        assert.equal(response.protocol, 'grpc');
        assert.equal(response.transport, 'native');
      }
    });
    assert.equal(await server.accepted('grpc'), before + 1, 'one gRPC connection is counted');
  });

  await check(`grpc-js server stream ${where}`, () =>
    withClient(echoClient(server), async (client) => {
      const messages = await received(client.ServerStream({ message: 'again', repeat: 20 }, { deadline: deadline() }));
      assert.deepEqual(messages.map((m) => m.message), Array(20).fill('again'));
    }));

  await check(`grpc-js client stream ${where}`, () =>
    withClient(echoClient(server), async (client) => {
      const response = await new Promise((resolve, reject) => {
        const call = client.ClientStream({ deadline: deadline() }, (err, value) => (err ? reject(err) : resolve(value)));
        for (const message of ['one', 'two', 'three']) call.write({ message });
        call.end();
      });
      assert.equal(response.message, 'three');
      assert.equal(response.sequence, 3);
    }));

  await check(`grpc-js bidirectional stream ${where}`, () =>
    withClient(echoClient(server), async (client) => {
      const call = client.BidiStream({ deadline: deadline() });
      for (let i = 0; i < 20; i++) {
        const answer = once(call, 'data');
        call.write({ message: `turn ${i}` });
        assert.equal((await answer)[0].message, `turn ${i}`);
      }
      const end = once(call, 'end');
      call.end();
      call.resume();
      await end;
    }));

  await check(`grpc-js errors ${where}`, () =>
    withClient(echoClient(server), async (client) => {
      const late = unary(client, 'Unary', { message: 'late', delay: { seconds: 10 } }, 200);
      // Two clocks end a late call, the client's and the server's. grpc-go's server resets the stream (CANCEL), and
      // grpc-js reports that as CANCELLED when its own timer comes second.
      await assert.rejects(late, (err) => [status.DEADLINE_EXCEEDED, status.CANCELLED].includes(err.code));
      const large = unary(client, 'Unary', { message: 'x'.repeat(5 << 20) });
      await assert.rejects(large, { code: status.RESOURCE_EXHAUSTED });
      assert.equal((await unary(client, 'Unary', { message: 'still there' })).message, 'still there');
    }));

  await check(`grpc-js health ${where}`, () =>
    withClient(healthClient(server), async (client) => {
      assert.equal((await unary(client, 'Check', { service: '' })).status, 'SERVING');
      await assert.rejects(unary(client, 'Check', { service: 'no.such.Service' }), { code: status.NOT_FOUND });
    }));

  await check(`grpc-js connects first and calls a second later ${where}`, async () => {
    const before = await server.accepted('grpc');
    await withClient(echoClient(server), async (client) => {
      await waitForReady(client);
      // The pause is the point: the connection is recognised only by its first call.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      assert.equal((await unary(client, 'Unary', { message: 'at last' })).transport, 'native');
    });
    assert.equal(await server.accepted('grpc'), before + 1, 'it is the connection that was waiting');
  });

  await check(`grpc-js: 2000 of 2000 calls on 50 channels ${where}`, async () => {
    const before = await server.accepted('grpc');
    const clients = Array.from({ length: 50 }, () => echoClient(server));
    try {
      await Promise.all(clients.map(waitForReady));
      const calls = clients.flatMap((client, i) =>
        Array.from({ length: 40 }, (_, j) => unary(client, 'Unary', { message: `${i}.${j}` })),
      );
      const answers = await Promise.all(calls);
      assert.equal(new Set(answers.map((answer) => answer.message)).size, 2000);
    } finally {
      clients.forEach((client) => client.close());
    }
    assert.equal(await server.accepted('grpc'), before + 50, 'every connection is counted once');
  });

  // The last check, because the HTTP handler is asked for such a method, and for a minute it gets this client's connections.
  await check(`grpc-js unknown method ${where}`, () =>
    withClient(echoClient(server), async (client) => {
      await assert.rejects(unknownMethod(client), { code: status.UNIMPLEMENTED });
      assert.equal((await unary(client, 'Unary', { message: 'still there' })).message, 'still there');
    }));
}

async function withClient(client, use) {
  try {
    await use(client);
  } finally {
    client.close();
  }
}

function unknownMethod(client) {
  const same = (value) => value;
  return new Promise((resolve, reject) => {
    const options = { deadline: deadline() };
    client.makeUnaryRequest('/no.such.Service/Method', same, same, Buffer.alloc(0), options, (err, value) =>
      err ? reject(err) : resolve(value),
    );
  });
}
