// Starts the real binary and asks its admin listener.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';

import { eventually, withTimeout } from './checks.mjs';
import { parse, sum } from './metrics.mjs';

const host = '127.0.0.1';
const exitTimeout = 20_000;

// freePorts returns n loopback ports that were free a moment ago.
export async function freePorts(n) {
  const listeners = await Promise.all(
    Array.from({ length: n }, async () => {
      const listener = net.createServer().listen(0, host);
      await once(listener, 'listening');
      return listener;
    }),
  );
  const ports = listeners.map((listener) => listener.address().port);
  await Promise.all(listeners.map((listener) => once(listener.close(), 'close')));
  return ports;
}

// start runs the binary on free ports and returns when it is ready.
export async function start(binary, { tls: mode = 'off', args = [] } = {}) {
  const [port, adminPort] = await freePorts(2);
  const server = new Server(port, adminPort, mode !== 'off');
  const flags = ['--listen', `${host}:${port}`, '--admin', `${host}:${adminPort}`, '--tls', mode, ...args];
  await server.run(binary, flags);
  return server;
}

// startWith runs the binary with these flags alone, which have it listen on the ports, and returns when it is ready.
export async function startWith(binary, port, adminPort, flags) {
  const server = new Server(port, adminPort, false);
  await server.run(binary, flags);
  return server;
}

class Server {
  output = ''; // What the process wrote so far, both streams.
  exit = undefined; // {code, signal} once it ended.

  constructor(port, adminPort, secure) {
    this.host = host;
    this.port = port;
    this.adminPort = adminPort;
    this.secure = secure;
    this.address = `${host}:${port}`;
    this.url = `${secure ? 'https' : 'http'}://${this.address}`;
    this.wsURL = `${secure ? 'wss' : 'ws'}://${this.address}`;
  }

  async run(binary, flags) {
    this.binary = binary;
    this.process = spawn(binary, flags, { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.on('data', (data) => (this.output += data));
    }
    this.ended = new Promise((resolve, reject) => {
      this.process.on('error', reject);
      this.process.on('close', (code, signal) => resolve((this.exit = { code, signal })));
    });
    const ready = eventually('muxserve becomes ready', async () => (await this.admin('/readyz')).status === 200);
    const gone = this.ended.then(({ code }) => {
      throw new Error(`muxserve exited with ${code}`);
    });
    for (const promise of [ready, gone]) promise.catch(() => {}); // The race below looks at the first one only.
    try {
      await Promise.race([ready, gone]);
    } catch (err) {
      this.process.kill('SIGKILL');
      throw new Error(`${err.message}\n${this.output}`);
    }
    if (!this.secure) return;
    this.certificate = await this.fetchCertificate();
    this.certificateFile = path.join(path.dirname(binary), 'certificate.pem');
    writeFileSync(this.certificateFile, this.certificate);
  }

  // admin asks the admin listener, on a connection of its own each time.
  admin(path, method = 'GET') {
    return new Promise((resolve, reject) => {
      const request = http.request({ host, port: this.adminPort, path, method, agent: false }, (response) => {
        let body = '';
        response.on('data', (data) => (body += data));
        response.on('end', () => resolve({ status: response.statusCode, body }));
      });
      request.on('error', reject);
      request.end();
    });
  }

  // metric reads /metrics and adds up the samples that fit.
  async metric(name, labels) {
    const { status, body } = await this.admin('/metrics');
    if (status !== 200) throw new Error(`/metrics answers ${status}`);
    return sum(parse(body), name, labels);
  }

  accepted(protocol) {
    return this.metric('mux_connections_accepted_total', { protocol });
  }

  active(protocol) {
    return this.metric('mux_connections_active', { protocol });
  }

  // connect opens a connection below HTTP, as a stranger's program would; over TLS it offers the protocols in alpn.
  async connect(alpn = ['http/1.1']) {
    const socket = this.secure
      ? tls.connect({ host, port: this.port, ca: this.certificate, ALPNProtocols: alpn })
      : net.connect({ host, port: this.port });
    await once(socket, this.secure ? 'secureConnect' : 'connect');
    return socket;
  }

  // fetchCertificate returns the server's certificate in PEM, so that clients can verify it from here on.
  async fetchCertificate() {
    const request = https.get(`${this.url}/livez`, { rejectUnauthorized: false, agent: false });
    const [response] = await once(request, 'response');
    const lines = response.socket.getPeerCertificate().raw.toString('base64').match(/.{1,64}/g);
    response.resume();
    await once(response, 'end');
    return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
  }

  // terminate sends SIGTERM, and waitExit resolves with {code, signal}.
  terminate() {
    this.process.kill('SIGTERM');
  }

  waitExit() {
    return withTimeout(this.ended, exitTimeout, 'muxserve exits');
  }

  // kill ends a server whose exit is not looked at.
  async kill() {
    if (!this.exit) this.process.kill('SIGKILL');
    await this.ended;
  }
}
