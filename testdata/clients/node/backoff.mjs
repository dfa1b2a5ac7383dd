// grpc-js on one channel, for as long as its caller wants: each line of standard input is an order, {wait, repeat_ms,
// deadline_ms}, and is answered with how many calls ended with which code, such as {"14": 3}.

import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import grpc from '@grpc/grpc-js';

import { task } from './task.mjs';

const client = new grpc.Client(task.address, grpc.credentials.createInsecure());

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const codes = {};
  const end = Date.now() + order.repeat_ms;
  do {
    const code = await call(order.wait, new Date(Math.max(end, Date.now() + order.deadline_ms)));
    codes[code] = (codes[code] ?? 0) + 1;
    await sleep(task.pause_ms);
  } while (Date.now() < end);
  console.log(JSON.stringify(codes));
}
client.close();

function call(waitForReady, deadline) {
  const bytes = (message) => message;
  const metadata = new grpc.Metadata({ waitForReady });
  return new Promise((resolve) => {
    const path = '/muxserve.demo.v1.Echo/Unary';
    client.makeUnaryRequest(path, bytes, bytes, Buffer.alloc(0), metadata, { deadline }, (err) => resolve(err ? err.code : 0));
  });
}
