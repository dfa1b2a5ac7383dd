const byId = (id) => document.getElementById(id);
const secure = location.protocol === "https:";
const socketURL = (secure ? "wss://" : "ws://") + location.host + "/ws";
const service = "/muxserve.demo.v1.Echo/";
const protocolNames = { "http/1.0": "HTTP/1.0", "http/1.1": "HTTP/1.1", "http/2.0": "HTTP/2", h2: "HTTP/2", h2c: "HTTP/2" };
const protocolName = (id) => protocolNames[id?.toLowerCase()] ?? (id || "not shown by this browser");
const protocolClass = (name) => ["grpc", "websocket", "http2", "http1"].find((id) => name.toLowerCase().replace(/[^a-z0-9]/g, "").includes(id)) ?? "";
const random = () => crypto.getRandomValues(new Uint32Array(1))[0];
const onConnection = ({ protocol, conn_id }) => (conn_id ? `pool ${protocol}, connection ${conn_id}` : "");

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

// say tells people who do not see the page what they would look for.
function say(text) {
  byId("status").textContent = text;
}

/* The tries */

// The browser's own account of a request says which protocol it went over. It is
// written a moment after the response, so it is waited for, but not for long.
function measuredProtocol(url) {
  return new Promise((resolve) => {
    const find = () => performance.getEntriesByName(url, "resource").at(-1);
    const known = find();
    if (known) {
      resolve(protocolName(known.nextHopProtocol));
      return;
    }
    const done = () => {
      observer.disconnect();
      resolve(protocolName(find()?.nextHopProtocol));
    };
    const observer = new PerformanceObserver(() => find() && done());
    observer.observe({ type: "resource", buffered: true });
    setTimeout(done, 1000);
  });
}

const oneTry = (path) => new URL(`${path}?try=${random()}`, location.href).href;

async function tryEcho(options) {
  const url = oneTry("/echo");
  const response = await fetch(url, { cache: "no-store", ...options });
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(answer.error ?? response.statusText);
  }
  const tls = answer.tls ? ", " + answer.tls.version : "";
  return {
    result: `${answer.method} ${answer.path}, ${answer.body_bytes.toLocaleString("en")} bytes of body`,
    protocol: await measuredProtocol(url),
    server: onConnection(answer) + tls,
  };
}

async function tryReady() {
  const url = oneTry("/readyz");
  const response = await fetch(url, { cache: "no-store" });
  const text = (await response.text()).trim();
  return { result: `${response.status} ${text}`, protocol: await measuredProtocol(url), server: "" };
}

// Two events, then the browser closes the stream.
function tryEvents() {
  return new Promise((resolve, reject) => {
    const source = new EventSource("/sse?interval=50ms");
    let events = 0;
    source.onmessage = ({ data }) => {
      events += 1;
      if (events < 2) {
        return;
      }
      source.close();
      const event = JSON.parse(data);
      resolve({ result: `${events} events, numbered by the server`, protocol: protocolName(event.proto), server: onConnection(event) });
    };
    source.onerror = () => {
      source.close();
      reject(new Error("the stream ended"));
    };
  });
}

async function tryCall(method, request) {
  const url = oneTry(service + method);
  let responses = 0;
  let last;
  for await (const response of grpcWeb(url, request)) {
    responses += 1;
    if (response.message !== request.message || response.sequence !== responses) {
      throw new Error("response " + responses + " is not the echo");
    }
    last = response;
  }
  if (responses !== (request.repeat ?? 1)) {
    throw new Error(responses + " responses");
  }
  return {
    result: `${responses} ${responses === 1 ? "response" : "responses"}, status OK`,
    protocol: "gRPC-Web, " + (await measuredProtocol(url)),
    server: onConnection(last),
  };
}

function sameBytes(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

// One WebSocket, one text and one binary message, a proper close.
function trySocket() {
  return new Promise((resolve, reject) => {
    const text = "grüße, 世界";
    const bytes = crypto.getRandomValues(new Uint8Array(1024));
    const socket = new WebSocket(socketURL);
    socket.binaryType = "arraybuffer";
    const fail = (reason) => { socket.close(); reject(new Error(reason)); };
    const timer = setTimeout(() => fail("no answer within 10 seconds"), 10_000);
    let messages = 0;
    socket.onopen = () => { socket.send(text); socket.send(bytes); };
    socket.onmessage = ({ data }) => {
      messages += 1;
      const same = messages === 1 ? data === text : sameBytes(new Uint8Array(data), bytes);
      if (!same) {
        fail("message " + messages + " came back changed");
      } else if (messages === 2) {
        socket.close(1000);
      }
    };
    socket.onclose = (event) => {
      clearTimeout(timer);
      if (messages < 2) {
        reject(new Error("closed with " + event.code));
        return;
      }
      resolve({
        result: `text and binary echoed, closed with ${event.code}`,
        protocol: secure ? "WebSocket over TLS" : "WebSocket",
        server: "",
      });
    };
  });
}

const tries = [
  ["GET", () => tryEcho()],
  ["POST", () => tryEcho({ method: "POST", body: new Uint8Array(100_000) })],
  ["PATCH", () => tryEcho({ method: "PATCH", body: "{}" })],
  ["Server-sent events", tryEvents],
  ["gRPC unary", () => tryCall("Unary", { message: "grüße, 世界" })],
  ["gRPC server stream", () => tryCall("ServerStream", { message: "hello", repeat: 3, interval: 0.05 })],
  ["WebSocket", trySocket],
  ["Readiness", tryReady],
];

function cell(label, text, className = "") {
  const td = element("td", text, className);
  td.setAttribute("role", "cell");
  if (label) {
    td.dataset.label = label;
  }
  return td;
}

function showTry(row, name, { result, className, protocol = "", server = "" }, time) {
  const label = element("th", name);
  label.scope = "row";
  label.setAttribute("role", "rowheader");
  const over = cell("over", "");
  if (protocol) {
    over.append(element("span", protocol, "proto " + protocolClass(protocol)));
  }
  row.replaceChildren(
    label,
    cell("", result, className),
    over,
    cell(server && "server says", server),
    cell("", time, "num"),
  );
}

// runTry reports whether a try has succeeded.
async function runTry(row, name, run) {
  showTry(row, name, { result: "under way…" }, "");
  const started = performance.now();
  let outcome;
  try {
    outcome = { ...(await run()), className: "" };
  } catch (err) {
    outcome = { result: "failed: " + err.message, className: "bad tone" };
  }
  showTry(row, name, outcome, (performance.now() - started).toFixed(0) + " ms");
  row.dataset.state = outcome.className ? "bad" : "good";
  return !outcome.className;
}

async function runAll() {
  byId("again").disabled = true;
  delete byId("results").dataset.done;
  performance.clearResourceTimings();
  const rows = tries.map(() => {
    const row = element("tr", "");
    row.setAttribute("role", "row");
    return row;
  });
  byId("results").replaceChildren(...rows);
  const succeeded = (await Promise.all(tries.map(([name, run], i) => runTry(rows[i], name, run)))).filter(Boolean).length;
  const text = succeeded === tries.length
    ? `All ${succeeded} tries succeeded, each to the port that this page came from.`
    : `${tries.length - succeeded} of ${tries.length} tries failed.`;
  byId("tries-say").textContent = text;
  byId("tries-say").classList.toggle("bad", succeeded < tries.length);
  byId("tries-say").classList.toggle("tone", succeeded < tries.length);
  say(text);
  byId("results").dataset.done = "true";
  byId("again").disabled = false;
}

/* What is kept open */

function addLine(list, text, most) {
  list.append(element("li", text));
  while (list.children.length > most) {
    list.firstElementChild.remove();
  }
}

const logged = 14; // Lines of what happened.

function log(text) {
  byId("log").querySelector(".quiet")?.remove();
  addLine(byId("log"), new Date().toLocaleTimeString() + "  " + text, logged);
}

// Panel is a card with the state of what it keeps open.
class Panel {
  constructor(id, name, unit) {
    Object.assign(this, { id, name, unit, count: 0 });
  }

  // state shows a word for it, in the drain's table with more. tone is ok, calm, warn, bad,
  // or empty for none of these.
  state(tone, text, more = "") {
    byId(this.id + "-pill").className = "pill " + tone;
    byId(this.id + "-pill").textContent = text;
    byId(this.id + "-now").className = "pill plain " + tone;
    byId(this.id + "-now").textContent = text + more;
  }

  // tell says what has happened to it, here and in the log.
  tell(text) {
    byId(this.id + "-last").textContent = text[0].toUpperCase() + text.slice(1) + ".";
    log(`${this.name}: ${text}`);
  }

  // line shows a message.
  line(text) {
    this.count += 1;
    byId(this.id + "-count").textContent = this.count;
    byId(this.id + "-unit").textContent = this.unit + (this.count === 1 ? "" : "s");
    addLine(byId(this.id + "-lines"), text, 4);
  }
}

const longestWait = 8000; // Milliseconds between two tries to connect again.

// Live is a panel whose stream or socket is opened again until it is closed here. connect
// opens it and returns a function that closes it. It calls opened, told and ended.
class Live extends Panel {
  constructor(id, name, unit, connect) {
    super(id, name, unit);
    Object.assign(this, { connect, wanted: false, isOpen: false, wasTold: false, tries: 0 });
    byId(id + "-toggle").addEventListener("click", (event) => {
      event.preventDefault();
      this.wanted ? this.close() : this.open();
    });
  }

  open() {
    if (this.wanted) {
      return;
    }
    this.wanted = true;
    this.tries = 0;
    byId(this.id + "-toggle").textContent = "Close";
    this.state("", "connecting");
    this.attempt();
    watchServer();
  }

  close() {
    if (!this.wanted) {
      return;
    }
    this.wanted = this.isOpen = false;
    byId(this.id + "-toggle").textContent = "Open";
    clearTimeout(this.timer);
    this.disconnect();
    this.state("", "closed");
    this.tell("closed by this page");
  }

  attempt() {
    this.wasTold = false;
    this.disconnect = this.connect(this);
  }

  opened(where) {
    this.isOpen = true;
    this.state("ok", "connected");
    this.tell((this.tries ? `connected again at try ${this.tries}` : "connected") + (where && ", " + where));
    this.tries = 0;
  }

  // told is what the server says before an end that it wants.
  told(how) {
    this.wasTold = true;
    this.state("calm", "told to leave");
    this.tell("told to leave: " + how);
    drain.reach("told");
    this.toldInDrain = true;
  }

  // ended is the end of what was open, or of a try to open it. again says whether this page
  // has to try again; the browser opens event streams by itself.
  ended(how, again = true) {
    if (!this.wanted) {
      return;
    }
    if (this.isOpen && !this.wasTold) {
      this.state("bad", "cut");
      this.tell("cut: " + how);
    } else if (!this.isOpen) {
      this.state("warn", "reconnecting", ", try " + this.tries);
    }
    this.isOpen = false;
    this.tries += 1;
    if (again) {
      const wait = Math.min(500 * 2 ** this.tries, longestWait);
      this.timer = setTimeout(() => {
        this.state("warn", "reconnecting", ", try " + this.tries);
        this.attempt();
      }, wait * (0.75 + Math.random() / 2)); // Apart, so that many pages do not come back at once.
    }
    drain.finish();
  }
}

function connectEvents(live) {
  const source = new EventSource("/sse");
  source.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (!live.isOpen) {
      live.wasTold = false;
      live.opened(onConnection(event));
    }
    live.line(`event ${event.sequence}`);
  };
  source.addEventListener("leave", ({ data }) => live.told(`event leave, “${data}”`));
  source.onerror = () => {
    const gaveUp = source.readyState === EventSource.CLOSED;
    live.ended("the stream ended", gaveUp);
  };
  return () => source.close();
}

function connectStream(live) {
  const abort = new AbortController();
  const request = { message: byId("stream-message").value, repeat: 10_000, interval: 1, endOnDrain: true };
  (async () => {
    try {
      for await (const response of grpcWeb(service + "ServerStream", request, abort.signal)) {
        if (!live.isOpen) {
          live.opened(onConnection(response));
        }
        live.line(`response ${response.sequence}: ${response.message}`);
      }
      live.ended("status OK");
    } catch (err) {
      if (abort.signal.aborted) {
        return;
      }
      if (err.code === unavailable) {
        live.told(err.message);
      }
      live.ended(err.message);
    }
  })();
  return () => abort.abort();
}

const goingAway = 1001;

function connectSocket(live) {
  const socket = new WebSocket(socketURL);
  socket.onopen = () => {
    live.opened("");
    live.socket = socket;
    live.queued?.();
    live.queued = null;
  };
  socket.onmessage = ({ data }) => live.line("echo: " + data);
  socket.onclose = ({ code, reason }) => {
    const how = `closed with ${code}${reason ? ` (${reason})` : ""}`;
    if (code === goingAway) {
      live.told(how);
    }
    live.ended(how);
  };
  return () => {
    socket.onclose = null;
    socket.close(1000);
  };
}

const events = new Live("events", "Event stream", "event", connectEvents);
const stream = new Live("stream", "gRPC stream", "response", connectStream);
const socket = new Live("socket", "WebSocket", "message", connectSocket);
const lives = [events, stream, socket];

const requests = Object.assign(new Panel("request", "Slow request", "answer"), {
  underWay: 0,

  async send() {
    const seconds = Math.min(Math.max(Number(byId("seconds").value) || 1, 1), 300);
    const method = byId("method").value;
    this.underWay += 1;
    this.show();
    this.tell(`${method} under way, for ${seconds} s`);
    watchServer();
    try {
      const body = method === "GET" ? undefined : "hello";
      const response = await fetch(`/echo?sleep=${seconds}s`, { method, body, cache: "no-store" });
      const answer = await response.json();
      this.tell(`${method} answered ${response.status} after ${seconds} s, ${onConnection(answer)}`);
      this.line(`${method} ${response.status}`);
      this.underWay -= 1;
      this.show();
    } catch (err) {
      this.underWay -= 1;
      this.state("bad", "failed");
      this.tell(`${method} failed: ${err.message}`);
    }
    drain.finish();
  },

  show() {
    if (this.underWay === 0) {
      this.state("ok", "answered");
    } else {
      this.state("ok", this.underWay === 1 ? "under way" : this.underWay + " under way");
    }
  },
});

// sendMessage sends to the open WebSocket, or to the one that it opens.
function sendMessage() {
  const message = byId("message").value;
  if (socket.isOpen) {
    socket.socket.send(message);
    return;
  }
  socket.queued = () => socket.socket.send(message);
  socket.open();
}

async function callUnary() {
  try {
    for await (const response of grpcWeb(service + "Unary", { message: byId("stream-message").value })) {
      stream.line(`unary: ${response.message}`);
    }
  } catch (err) {
    stream.line("unary: " + err.message);
  }
}

/* The drain, as it is seen from here */

const drainTexts = {
  unready: "The server is draining. /readyz says so to balancers; new connections are still served.",
  told: "The server tells its clients to leave. What is under way goes on.",
  closed: "The port takes no connection any more. This page tries again until a server is there.",
  finished: "All that was under way here has ended.",
  back: "A server is there again.",
};

const drain = {
  began: 0,
  reached: new Set(),

  // underWay is true from the first step that is seen to the return of a server.
  get underWay() {
    return this.reached.size > 0 && !this.reached.has("back");
  },

  reach(step) {
    if (this.underWay && this.reached.has(step)) {
      return;
    }
    if (!this.underWay) {
      this.begin();
    }
    const items = Array.from(byId("steps").children);
    const index = items.findIndex((item) => item.dataset.step === step);
    this.mark(items[index], ((performance.now() - this.began) / 1000).toFixed(1) + " s");
    if (step === "told" || step === "back") { // The others need not come in their order.
      items.slice(0, index).filter((item) => !this.reached.has(item.dataset.step)).forEach((item) => this.mark(item, "not seen"));
    }
    byId("drain-state").textContent = this.underWay ? "under way" : "over";
    byId("drain-say").textContent = drainTexts[step];
    say(drainTexts[step]);
    log("Drain: " + items[index].firstElementChild.textContent);
    this.finish();
  },

  mark(item, text) {
    this.reached.add(item.dataset.step);
    item.className = "done";
    item.lastElementChild.textContent = text;
  },

  begin() {
    this.began = performance.now();
    this.reached.clear();
    for (const item of byId("steps").children) {
      item.className = "";
      item.lastElementChild.textContent = "to come";
    }
    for (const live of lives) {
      live.toldInDrain = false;
    }
  },

  // finish reaches the step finished when nothing of before is left here.
  finish() {
    const left = requests.underWay > 0 || lives.some((live) => live.isOpen && !live.toldInDrain);
    if (this.underWay && this.reached.has("told") && !this.reached.has("finished") && !left) {
      this.reach("finished");
    }
  },

  // see takes what /readyz has said.
  see(said) {
    if (said === "draining") {
      this.reach("unready");
    } else if (said === "gone" && this.underWay) {
      this.reach("closed");
    } else if (said === "ready" && this.underWay && this.reached.has("finished")) {
      this.reach("back");
    }
  },
};

const serverStates = {
  ready: ["ok", "ready"],
  draining: ["calm", "draining"],
  unready: ["warn", "not ready"],
  gone: ["", "not listening"],
};

function showServer(said) {
  const [tone, text] = serverStates[said];
  byId("server").className = "pill " + tone;
  byId("server").textContent = text;
}

async function askReadiness() {
  try {
    const response = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    const text = await response.text();
    return response.ok ? "ready" : text.startsWith("draining") ? "draining" : "unready";
  } catch {
    return "gone";
  }
}

let watching = false;

// watchServer asks for the readiness twice a second, as long as something is open here.
async function watchServer() {
  if (watching) {
    return;
  }
  watching = true;
  while (requests.underWay > 0 || lives.some((live) => live.wanted)) {
    const said = await askReadiness();
    showServer(said);
    drain.see(said);
    await new Promise((resolve) => { setTimeout(resolve, 500); });
  }
  watching = false;
}

/* The rest of the page */

function showCommands() {
  const { origin, host, hostname, port } = location;
  const target = port ? host : `${hostname}:${secure ? 443 : 80}`;
  const grpcurl = `grpcurl ${secure ? "-insecure" : "-plaintext"}`;
  const commands = [
    ["HTTP/2", secure ? `curl -k --http2 ${origin}/echo` : `curl --http2-prior-knowledge ${origin}/echo`],
    ["Events", `curl ${secure ? "-k " : ""}-N ${origin}/sse`],
    ["gRPC services", `${grpcurl} ${target} list`],
    ["gRPC stream", `${grpcurl} -d '{"message": "hello", "repeat": 3, "interval": "1s"}' ${target} muxserve.demo.v1.Echo/ServerStream`],
  ];
  byId("commands").replaceChildren(...commands.map(([name, command]) => {
    const item = element("li", "");
    item.append(element("span", name), element("code", command));
    return item;
  }));
}

function onSubmit(id, action) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

const pageProtocol = protocolName(performance.getEntriesByType("navigation")[0]?.nextHopProtocol);
byId("origin").textContent = location.origin;
byId("page-protocol").textContent = pageProtocol;
document.body.classList.toggle("over-http2", pageProtocol === "HTTP/2");
byId("again").addEventListener("click", runAll);
byId("open-all").addEventListener("click", () => {
  if (requests.underWay === 0) {
    requests.send();
  }
  lives.forEach((live) => live.open());
});
byId("close-all").addEventListener("click", () => lives.forEach((live) => live.close()));
byId("unary").addEventListener("click", callUnary);
onSubmit("request-form", () => requests.send());
onSubmit("events-form", () => {});
onSubmit("stream-form", () => {});
onSubmit("socket-form", sendMessage);
showCommands();
runAll();
askReadiness().then(showServer);
