// grpc-js, with messages that are bytes to it, so that it needs no generated code.

import grpc from '@grpc/grpc-js';

import { askAll, ca, pause, task } from './task.mjs';

const hello = Buffer.from('\x0a\x05hello'); // An EchoRequest with that message; the answer begins in the same way.
const request = task.request ? Buffer.from(task.request, 'hex') : hello; // It begins with hello.
// The calls take turns; each has a path and what must stand in the answer: the transport, or another server's word.
const calls = task.calls || [['/muxserve.demo.v1.Echo/Unary', task.transport]];
let made = 0;
const bytes = (message) => message;
const timeout = 60_000;

await askAll(async (ask) => {
  const credentials = ca ? grpc.credentials.createSsl(ca) : grpc.credentials.createInsecure();
  const client = new grpc.Client(task.address, credentials, {
    'grpc.use_local_subchannel_pool': 1, // Else channels to one address share a connection.
    'grpc.ssl_target_name_override': 'localhost', // A server name must not be an IP address (RFC 6066, section 3).
  });
  const deadline = new Date(Date.now() + timeout + task.pause_ms);
  try {
    if (task.pause_ms > 0) {
      await new Promise((resolve, reject) => client.waitForReady(deadline, (err) => (err ? reject(err) : resolve())));
      await pause();
    }
    await ask(() => echo(client, deadline));
  } finally {
    client.close();
  }
});

function echo(client, deadline) {
  return new Promise((resolve, reject) => {
    const [path, by] = calls[made++ % calls.length];
    client.makeUnaryRequest(path, bytes, bytes, request, new grpc.Metadata(), { deadline }, (err, answer) => {
      if (err) return reject(err);
      if (!answer.subarray(0, hello.length).equals(hello)) return reject(new Error(`answered ${answer.toString('hex')}`));
      if (!answer.includes(by)) return reject(new Error(`${path} was not answered by ${by}`));
      return resolve();
    });
  });
}
