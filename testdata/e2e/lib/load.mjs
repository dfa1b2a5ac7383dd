// A steady load of GETs, of which none may be lost.

import http from 'node:http';
import https from 'node:https';

const tick = 10; // Milliseconds between looks at how many requests are due.
const answerTimeout = 20_000;

// Load sends requests at a rate, whether or not those before have been answered. Kinds are asked in turn.
export class Load {
  sent = 0;
  retried = 0;
  lost = []; // What went wrong, with the step of the exercise in which it was sent.
  step = 'start';
  #open = new Map(); // By the answer that is waited for, its kind.

  constructor(rate, kinds) {
    this.rate = rate;
    this.kinds = kinds;
    this.started = performance.now();
    this.timer = setInterval(() => this.#send(), tick);
  }

  #send() {
    const due = ((performance.now() - this.started) / 1000) * this.rate;
    for (; this.sent < due; this.sent++) {
      const kind = this.kinds[this.sent % this.kinds.length];
      const { step } = this;
      const answer = this.#ask(kind).catch((err) => this.lost.push(`${step}: ${kind.name}: ${err.code ?? err.message}`));
      this.#open.set(answer, kind);
      answer.finally(() => this.#open.delete(answer));
    }
  }

  // ask makes one request. As browsers and net/http's client do, it sends a GET again whose kept connection was closed before
  // a byte of the answer.
  async #ask(kind) {
    try {
      await get(kind);
    } catch (err) {
      if (!err.reused) throw err;
      this.retried++;
      await get(kind);
    }
  }

  // pending returns how many requests of a kind have not been answered.
  pending(kind) {
    return [...this.#open.values()].filter((k) => k === kind).length;
  }

  // stop ends the load and resolves when all has been answered.
  async stop() {
    clearInterval(this.timer);
    while (this.#open.size > 0) await Promise.all(this.#open.keys());
    for (const kind of this.kinds) kind.agent?.destroy?.();
  }
}

// get resolves when a kind's request has been answered with 200, to its end.
function get({ url, agent, options = {} }) {
  return new Promise((resolve, reject) => {
    const request = (url.startsWith('https:') ? https : http).get(url, { agent, ...options, timeout: answerTimeout }, (response) => {
      response.on('error', reject);
      response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`))));
      response.resume();
    });
    request.on('timeout', () => request.destroy(new Error(`no answer within ${answerTimeout} ms`)));
    request.on('error', (err) => {
      err.reused = request.reusedSocket && err.code === 'ECONNRESET';
      reject(err);
    });
  });
}
