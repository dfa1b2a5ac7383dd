// grpc-js clients of the demo service and of the health service, with their calls as promises.

import path from 'node:path';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const here = path.dirname(fileURLToPath(import.meta.url));
const files = ['../health.proto', '../../../cmd/muxserve/demo/v1/echo.proto'].map((name) => path.join(here, name));
const options = { keepCase: true, longs: Number, enums: String, defaults: true };
const services = grpc.loadPackageDefinition(loader.loadSync(files, options));
const { Echo } = services.muxserve.demo.v1;
const { Health } = services.grpc.health.v1;

// callTimeout bounds every call, so that a server that forgets one fails the check that made it.
const callTimeout = 20_000;

export function deadline(ms = callTimeout) {
  return new Date(Date.now() + ms);
}

// echoClient returns a client of the demo service on a connection of its own.
export function echoClient(server) {
  return client(Echo, server);
}

// healthClient returns a client of the health service on a connection of its own.
export function healthClient(server) {
  return client(Health, server);
}

function client(Service, server) {
  const credentials = server.secure
    ? grpc.credentials.createSsl(Buffer.from(server.certificate))
    : grpc.credentials.createInsecure();
  return new Service(server.address, credentials, {
    'grpc.use_local_subchannel_pool': 1, // Else grpc-js shares a connection between channels to one address.
    'grpc.ssl_target_name_override': 'localhost', // A server name must not be an IP address (RFC 6066, section 3).
  });
}

// waitForReady connects the client without making a call.
export function waitForReady(client) {
  return new Promise((resolve, reject) => client.waitForReady(deadline(), (err) => (err ? reject(err) : resolve())));
}

// unary makes a unary call; it rejects with the ServiceError.
export function unary(client, method, request, timeout) {
  return new Promise((resolve, reject) => {
    client[method](request, { deadline: deadline(timeout) }, (err, response) => (err ? reject(err) : resolve(response)));
  });
}

// received resolves with all messages of a stream once its status is OK; it rejects with the error.
export function received(stream) {
  return new Promise((resolve, reject) => {
    const messages = [];
    stream.on('data', (message) => messages.push(message));
    stream.on('error', reject);
    stream.on('end', () => resolve(messages));
  });
}

export const { status } = grpc;
