const byId = (id) => document.getElementById(id);
const secure = location.protocol === "https:";
const socketURL = (secure ? "wss://" : "ws://") + location.host + "/ws";
const protocolNames = { "http/1.0": "HTTP/1.0", "http/1.1": "HTTP/1.1", h2: "HTTP/2", h2c: "HTTP/2" };
const protocolName = (id) => protocolNames[id] ?? (id || "not shown by this browser");

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

async function tryEcho(options) {
  const url = new URL("/echo?try=" + crypto.getRandomValues(new Uint32Array(1))[0], location.href).href;
  const response = await fetch(url, { cache: "no-store", ...options });
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(answer.error ?? response.statusText);
  }
  const tls = answer.tls ? ", " + answer.tls.version : "";
  return {
    result: `${answer.method} ${answer.path}, ${answer.body_bytes} bytes of body`,
    protocol: await measuredProtocol(url),
    server: `${answer.proto}, pool ${answer.protocol}, connection ${answer.conn_id}${tls}`,
  };
}

async function tryReady() {
  const url = new URL("/readyz", location.href).href;
  const response = await fetch(url, { cache: "no-store" });
  const text = (await response.text()).trim();
  return { result: `${response.status} ${text}`, protocol: await measuredProtocol(url), server: "/readyz" };
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
        server: "/ws",
      });
    };
  });
}

const tries = [
  ["GET", () => tryEcho()],
  ["POST", () => tryEcho({ method: "POST", body: new Uint8Array(100_000) })],
  ["PATCH", () => tryEcho({ method: "PATCH", body: "{}" })],
  ["WebSocket", trySocket],
  ["Readiness", tryReady],
];

function cell(text, className) {
  const td = document.createElement("td");
  td.textContent = text;
  if (className) {
    td.className = className;
  }
  return td;
}

async function runTry(row, name, run) {
  const started = performance.now();
  let outcome;
  try {
    outcome = { ...(await run()), className: "good" };
  } catch (err) {
    outcome = { result: "failed: " + err.message, protocol: "", server: "", className: "bad" };
  }
  const label = document.createElement("th");
  label.scope = "row";
  label.textContent = name;
  row.replaceChildren(
    label,
    cell(outcome.result, outcome.className),
    cell(outcome.protocol),
    cell(outcome.server),
    cell((performance.now() - started).toFixed(0) + " ms", "number"),
  );
  row.dataset.state = outcome.className;
}

async function runAll() {
  byId("again").disabled = true;
  performance.clearResourceTimings();
  const rows = tries.map(() => document.createElement("tr"));
  byId("results").replaceChildren(...rows);
  await Promise.all(tries.map(([name, run], i) => runTry(rows[i], name, run)));
  byId("results").dataset.done = "true";
  byId("again").disabled = false;
}

let socket;

function note(text) {
  const item = document.createElement("li");
  item.textContent = text;
  byId("log").append(item);
  item.scrollIntoView({ block: "nearest" });
}

function openSocket() {
  socket = new WebSocket(socketURL);
  byId("socket-state").textContent = "connecting";
  socket.onopen = () => { byId("socket-state").textContent = "open"; };
  socket.onmessage = ({ data }) => note("echo: " + data);
  socket.onclose = ({ code, reason }) => {
    byId("socket-state").textContent = `closed with ${code}${reason ? " (" + reason + ")" : ""}`;
  };
}

function sendMessage() {
  const message = byId("message").value;
  if (!socket || socket.readyState > WebSocket.OPEN) {
    openSocket();
  }
  if (socket.readyState === WebSocket.OPEN) {
    socket.send(message);
  } else {
    socket.addEventListener("open", () => socket.send(message), { once: true });
  }
}

async function runSlow() {
  const seconds = Math.min(Math.max(Number(byId("seconds").value) || 1, 1), 300);
  byId("slow-result").textContent = "waiting…";
  try {
    const response = await fetch(`/echo?sleep=${seconds}s`, { cache: "no-store" });
    byId("slow-result").textContent = `answered ${response.status} after ${seconds} s`;
  } catch (err) {
    byId("slow-result").textContent = "failed: " + err.message;
  }
}

function showCommands() {
  const { origin, host, hostname, port } = location;
  const target = port ? host : `${hostname}:${secure ? 443 : 80}`;
  byId("commands").textContent = [
    secure ? `curl -k --http2 ${origin}/echo` : `curl --http2-prior-knowledge ${origin}/echo`,
    `grpcurl ${secure ? "-insecure" : "-plaintext"} ${target} list`,
    `grpcurl ${secure ? "-insecure" : "-plaintext"} -d '{"message": "hello", "repeat": 3, "interval": "1s"}' \\\n` +
      `  ${target} muxserve.demo.v1.Echo/ServerStream`,
  ].join("\n");
}

byId("origin").textContent = location.origin;
byId("page-protocol").textContent = protocolName(performance.getEntriesByType("navigation")[0]?.nextHopProtocol);
byId("again").addEventListener("click", runAll);
byId("send").addEventListener("click", sendMessage);
byId("message").addEventListener("keydown", (event) => event.key === "Enter" && sendMessage());
byId("close").addEventListener("click", () => socket?.close(1000));
byId("slow").addEventListener("click", runSlow);
showCommands();
runAll();
