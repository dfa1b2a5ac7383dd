// undici, the client below node's fetch, in the form that the task names.

import { Client, H2CClient } from 'undici';

import { askAll, ca, task } from './task.mjs';

const clients = {
  http1: (origin) => new Client(origin, { connect: { ca } }),
  h2: (origin) => new Client(origin, { allowH2: true, connect: { ca } }),
  h2c: (origin) => new H2CClient(origin),
};
const proto = task.form === 'http1' ? 'HTTP/1.1' : 'HTTP/2.0';

await askAll(async (ask) => {
  const client = clients[task.form](new URL(task.url).origin);
  try {
    await ask(async () => {
      const { statusCode, body } = await client.request({ method: 'GET', path: '/echo' });
      const echo = await body.json();
      if (statusCode !== 200 || echo.proto !== proto) throw new Error(`${statusCode} over ${echo.proto}, want ${proto}`);
    });
  } finally {
    await client.close();
  }
});
