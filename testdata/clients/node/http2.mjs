// The HTTP/2 client of node itself.

import { once } from 'node:events';
import http2 from 'node:http2';

import { askAll, ca, pause, task } from './task.mjs';

await askAll(async (ask) => {
  const session = http2.connect(task.url, { ca });
  const failed = new Promise((_, reject) => {
    session.on('error', reject);
    session.on('goaway', (code) => code !== 0 && reject(new Error(`GOAWAY ${code}`)));
  });
  failed.catch(() => {}); // It is raced below, and may come later.
  try {
    if (task.pause_ms > 0) {
      await Promise.race([failed, once(session, 'remoteSettings')]);
      await pause();
    }
    await Promise.race([failed, ask(() => get(session))]);
  } finally {
    session.close();
  }
});

async function get(session) {
  const stream = session.request({ ':path': '/echo' });
  const [headers] = await once(stream, 'response');
  if (headers[':status'] !== 200) throw new Error(`status ${headers[':status']}`);
  stream.resume();
  await once(stream, 'end');
}
