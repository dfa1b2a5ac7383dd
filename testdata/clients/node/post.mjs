// Posts 10 MB to a handler that does not read them, by node's HTTP/2 client or by undici.

import { once } from 'node:events';
import http2 from 'node:http2';

import { Client, H2CClient } from 'undici';

import { askAll, ca, task } from './task.mjs';

const origin = new URL(task.url).origin;
const path = '/livez';
const body = Buffer.alloc(10_000_000);
const clients = {
  h2: () => new Client(origin, { allowH2: true, connect: { ca } }),
  h2c: () => new H2CClient(origin),
};

await askAll(task.form === 'node' ? byNode : byUndici);

async function byNode(ask) {
  const session = http2.connect(origin, { ca });
  const failed = new Promise((_, reject) => session.on('error', reject));
  failed.catch(() => {}); // It is raced below, and may come later.
  try {
    await Promise.race([failed, ask(() => post(session))]);
  } finally {
    session.close();
  }
}

async function post(session) {
  const stream = session.request({ ':method': 'POST', ':path': path, 'content-length': body.length });
  stream.end(body);
  const [headers] = await once(stream, 'response');
  if (headers[':status'] !== 405) throw new Error(`status ${headers[':status']}`);
  stream.resume();
  await once(stream, 'end');
}

async function byUndici(ask) {
  const client = clients[task.form]();
  try {
    await ask(async () => {
      const response = await client.request({ method: 'POST', path, body });
      await response.body.text();
      if (response.statusCode !== 405) throw new Error(`status ${response.statusCode}`);
    });
  } finally {
    await client.close();
  }
}
