// An operator's exercise: two servers behind HAProxy serve 200 requests a second, while the first of them is misconfigured, mended,
// taken out of service and put back, gets a new certificate and a new binary, has a log that nobody reads, and is drained at last.
// Nothing is lost.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

import { check, eventually, withTimeout } from '../lib/checks.mjs';
import { startHAProxy } from '../lib/haproxy.mjs';
import { Load } from '../lib/load.mjs';
import { freePorts, startWith } from '../lib/server.mjs';

const host = '127.0.0.1';
const rate = 200; // Requests a second.
const endTimeout = 40_000; // More than the drain's timeout.

export async function checkExercise(binary) {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'muxserve-exercise-'));
  const e = new Exercise(binary, dir);
  try {
    await e.start();
    await e.misconfigure();
    await e.leaveAndReturn();
    await e.swapCertificate();
    await e.upgrade();
    await e.blockLog();
    await e.drain();
    await check('exercise: nothing was lost', async () => {
      await e.load.stop();
      const { sent, retried, lost } = e.load;
      console.log(`      ${sent} requests, ${retried} sent again, ${lost.length} lost`);
      assert.deepEqual(lost, []);
      assert.ok(retried <= Math.max(1, sent / 1000), `${retried} of ${sent} were sent again`);
    });
  } finally {
    await e.close();
    rmSync(dir, { recursive: true });
  }
}

// Exercise has the servers a, on which the operator acts, and b, which helps out.
class Exercise {
  constructor(binary, dir) {
    this.binary = binary;
    this.dir = dir;
    this.file = path.join(dir, 'muxserve.yaml');
    this.cert = path.join(dir, 'tls.crt');
    this.key = path.join(dir, 'tls.key');
  }

  async start() {
    const [front, service, admin, second, secure, serviceB, adminB] = await freePorts(7);
    Object.assign(this, { second, secure });
    this.writeCertificate();
    this.config = {
      listeners: [
        { address: `${host}:${service}`, proxy_protocol: { mode: 'required', trusted: [host] } },
        { address: `${host}:${second}` }, // For a second balancer, which sends a PROXY header.
        { address: `${host}:${secure}`, tls: { mode: 'auto', cert: this.cert, key: this.key } },
      ],
      admin: { address: `${host}:${admin}` },
      // HAProxy's checks of this run need half a second.
      drain: { delay: '3s', spread: '1s', timeout: '30s' },
      log: { format: 'json' },
    };
    this.writeConfig();
    this.a = await startWith(this.binary, service, admin, ['--config', this.file]);
    this.exited = once(this.a.process, 'exit');
    this.b = await startWith(this.binary, serviceB, adminB, [
      '--listen', `${host}:${serviceB}`, '--admin', `${host}:${adminB}`, '--proxy-protocol', 'required', '--proxy-trusted', host,
      '--log-format', 'json',
    ]);
    this.haproxy = await startHAProxy(this.dir, front, [this.a, this.b]);
    const url = `http://${host}:${front}/echo`;
    const all = { name: 'kept', url, agent: new http.Agent({ keepAlive: true, maxSockets: 20 }) };
    this.overTLS = {
      name: 'TLS, new', url: `https://${host}:${secure}/echo`, agent: false,
      options: { rejectUnauthorized: false }, // The step that swaps the certificate looks at it.
    };
    const fresh = { name: 'new', url, agent: false };
    this.load = new Load(rate, [all, fresh, all, fresh, all, fresh, all, fresh, all, this.overTLS]);
  }

  step(name, fn) {
    this.load.step = name;
    return check(`exercise: ${name}`, fn);
  }

  async misconfigure() {
    await this.step('a PROXY header to a port without it is refused, and the log says so with the peer and the cure', async () => {
      const socket = await this.balancerConnects();
      assert.equal(await textOf(socket), '');
      const said = (line, text) => JSON.stringify(line).includes(text);
      const [line] = await this.logged((l) => l.level === 'WARN' && said(l, 'a PROXY header on a port without proxy_protocol'));
      assert.ok(said(line, host) && said(line, 'set proxy_protocol.mode'), JSON.stringify(line));
    });
    await this.step('a reload mends it', async () => {
      this.config.listeners[1].proxy_protocol = { mode: 'required', trusted: [host] };
      await this.reload();
      const answer = await textOf(await this.balancerConnects());
      assert.match(answer, /^HTTP\/1\.1 200 /);
      assert.match(answer, /192\.0\.2\.7/, 'the handler sees the client that the header names');
    });
  }

  async leaveAndReturn() {
    await this.step('the API takes a server out of service', async () => {
      await this.call('/ready?state=off');
      assert.equal((await this.a.admin('/readyz')).status, 503);
      await this.haproxy.becomes(this.haproxy.names[0], 'DOWN');
    });
    await this.step('the API puts it back', async () => {
      await this.call('/ready?state=on');
      assert.equal((await this.a.admin('/readyz')).status, 200);
      await this.haproxy.becomes(this.haproxy.names[0], 'UP');
    });
  }

  async swapCertificate() {
    await this.step('new connections get the new certificate, and open ones stay', async () => {
      const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
      try {
        const { fingerprint: before } = await this.askOverTLS(agent);
        assert.equal(before, new X509Certificate(readFileSync(this.cert)).fingerprint256);
        this.writeCertificate();
        await this.reload();
        const wanted = new X509Certificate(readFileSync(this.cert)).fingerprint256;
        assert.notEqual(wanted, before);
        assert.equal((await this.askOverTLS(false)).fingerprint, wanted);
        assert.ok((await this.askOverTLS(agent)).reused, 'the kept connection was closed');
      } finally {
        agent.destroy();
      }
    });
  }

  async upgrade() {
    await this.step('a new process takes over', async () => {
      this.a.process.kill('SIGUSR2');
      const [code, signal] = await withTimeout(this.exited, endTimeout, 'the old process ends');
      assert.deepEqual({ code, signal }, { code: 0, signal: null }, this.a.output);
      const [line] = await this.logged(({ msg }) => /^upgraded/.test(msg));
      this.next = line.new_pid;
      assert.notEqual(this.next, this.a.process.pid);
      assert.equal((await this.a.admin('/readyz')).status, 200);
    });
  }

  async blockLog() {
    const { stderr } = this.a.process;
    await this.step('a log that nobody reads holds nothing up', async () => {
      this.config.log.access = true;
      await this.reload();
      stderr.pause();
      await eventually('lines are dropped', async () => {
        // Besides the load, for the pipe and the queue to fill sooner.
        await Promise.all(Array.from({ length: 500 }, () => this.balancerAsks()));
        return (await this.a.metric('mux_log_lines_dropped_total')) > 0;
      });
      assert.equal((await this.a.admin('/readyz')).status, 200);
      this.config.log.access = false;
      await this.reload();
    });
    await this.step('the log flows again and says how much is missing', async () => {
      stderr.resume();
      await this.logged(({ level, msg }) => level === 'WARN' && /dropped/.test(msg));
    });
  }

  async drain() {
    this.load.kinds = this.load.kinds.filter((kind) => kind !== this.overTLS); // Nothing else serves that port.
    await this.step('the API drains a server, and the other one goes on', async () => {
      await eventually('the last request over TLS is answered', async () => this.load.pending(this.overTLS) === 0);
      await this.call('/drain');
      await this.haproxy.becomes(this.haproxy.names[0], 'DOWN');
      await eventually('the server ends', async () => (await refused(this.a.adminPort)), endTimeout);
      await this.logged(({ msg, pid }) => msg === 'drain ended' && (pid === undefined || pid === this.next));
    });
  }

  // call makes a call that changes something.
  async call(target) {
    const { status, body } = await this.a.admin(target, 'POST');
    assert.ok(status === 200 || status === 202, `POST ${target}: ${status} ${body}`);
  }

  writeConfig() {
    writeFileSync(`${this.file}.new`, JSON.stringify(this.config)); // JSON is YAML.
    renameSync(`${this.file}.new`, this.file);
  }

  async reload() {
    this.writeConfig();
    await this.call('/config/reload');
  }

  writeCertificate() {
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost',
      '-addext', `subjectAltName=DNS:localhost,IP:${host}`, '-keyout', this.key, '-out', this.cert,
    ], { stdio: 'ignore' });
  }

  // askOverTLS asks with an agent, and says whether that was on a connection that it had, and else which certificate it saw.
  async askOverTLS(agent) {
    const request = https.get({ host, port: this.secure, path: '/livez', agent, rejectUnauthorized: false });
    const [response] = await once(request, 'response');
    assert.equal(response.statusCode, 200);
    const fingerprint = response.socket.getPeerX509Certificate()?.fingerprint256;
    response.resume();
    await once(response, 'end');
    return { reused: request.reusedSocket, fingerprint };
  }

  // balancerConnects asks as the second balancer does, which names a client in the PROXY header, version 2.
  async balancerConnects() {
    const socket = net.connect(this.second, host);
    await once(socket, 'connect');
    socket.write(Buffer.from('0d0a0d0a000d0a515549540a2111000cc0000207c63364010fa001bb', 'hex'));
    socket.write(`GET /echo HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    return socket;
  }

  async balancerAsks() {
    assert.match(await textOf(await this.balancerConnects()), /^HTTP\/1\.1 200 /);
  }

  // logged waits for lines of server a that fit all conditions, and returns them.
  logged(...conditions) {
    return eventually(`a line of the log fits ${conditions.join(' and ')}`, () => {
      const lines = records(this.a.output).filter((line) => conditions.every((fits) => fits(line)));
      return lines.length > 0 && lines;
    });
  }

  async close() {
    await this.load?.stop();
    await this.haproxy?.close();
    if (this.next) {
      try {
        process.kill(this.next, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }
    for (const server of [this.a, this.b]) {
      server?.process.stderr.resume();
      await server?.kill();
    }
  }
}

// textOf returns all that a socket brings until its end, or until it is reset.
async function textOf(socket) {
  let text = '';
  try {
    for await (const data of socket) text += data;
  } catch (err) {
    if (err.code !== 'ECONNRESET') throw err;
  }
  return text;
}

// records returns the lines of a log in JSON.
function records(text) {
  return text
    .split('\n')
    .filter((line) => line.startsWith('{') && line.endsWith('}'))
    .map((line) => JSON.parse(line));
}

// refused resolves with whether nothing listens on a port.
function refused(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, host);
    socket.on('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.on('error', () => resolve(true));
  });
}
