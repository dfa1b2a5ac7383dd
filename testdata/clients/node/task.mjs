// What every client here is told and what it tells: JSON in the last argument, JSON on standard output.

import { readFileSync } from 'node:fs';

export const task = JSON.parse(process.argv.at(-1));

// ca is the certificate to trust; undefined in plaintext.
export const ca = task.ca ? readFileSync(task.ca) : undefined;

// pause waits as long as the task wants a connection to be open before its first request.
export function pause() {
  return new Promise((resolve) => setTimeout(resolve, task.pause_ms));
}

// atOnce is how many connections are open at the same time where there is no pause.
const atOnce = 20;
const maxErrors = 5;

// askAll calls connection() for each connection of the task; it gets a function that makes one request and must throw
// where the answer is not what it should be. What came of it all is printed.
export async function askAll(connection) {
  let answered = 0;
  const errors = [];
  const count = async (request) => {
    await request();
    answered++;
  };
  let left = task.connections;
  const worker = async () => {
    while (left-- > 0) {
      try {
        await connection((request) => Promise.all(Array.from({ length: task.each }, () => count(request))));
      } catch (err) {
        errors.push(`${err.stack ?? err}`);
      }
    }
  };
  const workers = task.pause_ms > 0 ? task.connections : atOnce;
  await Promise.all(Array.from({ length: workers }, worker));
  console.log(JSON.stringify({ answered, errors: errors.slice(0, maxErrors) }));
}
