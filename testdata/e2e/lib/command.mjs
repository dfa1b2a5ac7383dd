// Starts command-line clients.

import { spawn } from 'node:child_process';

// run starts a program and resolves with its exit code and its output; it rejects only when the program cannot be started.
export function run(program, ...args) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data) => (stdout += data));
    child.stderr.on('data', (data) => (stderr += data));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

// runOK is run for a program that must exit with 0; it resolves with its standard output.
export async function runOK(program, ...args) {
  const { code, stdout, stderr } = await run(program, ...args);
  if (code !== 0) {
    throw new Error(`${program} ${args.join(' ')}: exit code ${code}\n${stderr}${stdout}`);
  }
  return stdout;
}
