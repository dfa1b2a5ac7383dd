// The connection to the server: requests with the token, and the event stream.

const silence = 6000; // milliseconds without an event after which a stream counts as broken
const retry = 1000; // between two tries

// The token is kept in memory alone.
let token = "";
export const setToken = (value) => { token = value; };
export const hasToken = () => token !== "";

// send makes a request. It fails only where no server answers.
export function send(method, path, signal) {
  return fetch(path, { method, cache: "no-store", signal, headers: token ? { Authorization: `Bearer ${token}` } : {} });
}

export const pidOf = (response) => Number(response.headers.get("Muxserve-Pid"));

const pause = (millis) => new Promise((resolve) => { setTimeout(resolve, millis); });

// parse yields the events of a stream of the type text/event-stream.
async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const fields = Object.fromEntries(text.slice(0, end).split("\n").map((line) => line.split(/: (.*)/s)));
      text = text.slice(end + 2);
      yield fields;
    }
  }
}

// stream passes on the events of one stream, and returns when it ends or falls silent.
async function stream(on) {
  const control = new AbortController();
  let timer = setTimeout(() => control.abort(), silence);
  try {
    const response = await send("GET", "/events", control.signal);
    if (response.status === 401) return await on.denied();
    if (!response.ok) return;
    on.opened(pidOf(response));
    for await (const { event, data } of parse(response.body)) {
      clearTimeout(timer);
      timer = setTimeout(() => control.abort(), silence);
      on.event(event, JSON.parse(data));
      if (event === "end") return;
    }
  } finally {
    clearTimeout(timer);
    control.abort();
  }
}

// poll asks for what a stream would have sent.
async function poll(on) {
  const [health, drain] = await Promise.all(["/health", "/drain"].map((path) => send("GET", path, AbortSignal.timeout(silence))));
  if (health.status === 401 || drain.status === 401) return;
  on.polled(pidOf(drain));
  on.event("health", await health.json());
  const progress = await drain.json();
  if (progress.over) on.event("end", progress);
  else if (progress.running) on.event("drain", progress);
}

// follow follows the server until its drain is over. Where it cannot have a stream, it polls.
//
// on.opened and on.polled come with the process that answers, on.event with what it says, on.lost where nothing answers,
// and on.denied, which may wait, where the token is needed.
export async function follow(on) {
  let over = false;
  const event = (name, data) => {
    over ||= name === "end";
    try {
      on.event(name, data);
    } catch (fault) { // It is the page's, and no reason to give up the stream.
      reportError(fault);
    }
  };
  while (!over) {
    try {
      await stream({ ...on, event });
    } catch { /* It broke off. */ }
    if (over) return;
    try {
      await poll({ ...on, event });
    } catch {
      on.lost();
    }
    if (!over) await pause(retry);
  }
}

// successor waits until another process than this one answers, and returns its pid.
export async function successor(pid) {
  for (;;) {
    await pause(2 * retry);
    try {
      const other = pidOf(await send("GET", "/livez", AbortSignal.timeout(silence)));
      if (other && other !== pid) return other;
    } catch { /* Nobody answers. */ }
  }
}
