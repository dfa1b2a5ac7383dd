// Runs HAProxy with the recipe of cmd/muxserve/deploy.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { eventually } from './checks.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const recipe = path.join(here, '../../../cmd/muxserve/deploy/haproxy.cfg');

// startHAProxy runs the recipe with the addresses of this run and faster checks, before servers with address and adminPort, and
// resolves when all of them are up.
export async function startHAProxy(dir, port, servers) {
  const socket = path.join(dir, 'haproxy.sock');
  const left = [...servers];
  const names = [];
  const config = readFileSync(recipe, 'utf8')
    .replace('maxconn 20000', `maxconn 1000\n    stats socket ${socket}`)
    .replace('127.0.0.1:8000', `127.0.0.1:${port}`)
    .replace('inter 2s fall 3', 'inter 200ms fall 2')
    .replace(/^( +server (\w+)) .*$/gm, (_, server, name) => {
      const { address, adminPort } = left.shift();
      names.push(name);
      return `${server} ${address} port ${adminPort}`;
    });
  const file = path.join(dir, 'haproxy.cfg');
  writeFileSync(file, config);
  let output = '';
  const child = spawn('haproxy', ['-db', '-f', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
  const ended = once(child, 'exit');
  const haproxy = {
    names,
    // status is UP or DOWN, once a check has said so.
    async status(name) {
      const [line] = (await ask(socket, 'show stat\n')).split('\n').filter((text) => text.startsWith(`muxserve,${name},`));
      return line.split(',')[17];
    },
    becomes: (name, wanted) =>
      eventually(`${name} is ${wanted} for HAProxy`, async () => {
        if (child.exitCode !== null) throw new Error(`HAProxy ended\n${output}`);
        return (await haproxy.status(name)) === wanted;
      }),
    async close() {
      child.kill('SIGKILL');
      await ended;
    },
  };
  try {
    for (const name of names) await haproxy.becomes(name, 'UP');
  } catch (err) {
    await haproxy.close();
    throw err;
  }
  return haproxy;
}

async function ask(socket, command) {
  const connection = net.connect(socket);
  connection.end(command);
  let answer = '';
  for await (const data of connection) answer += data;
  return answer;
}
