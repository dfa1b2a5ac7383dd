const refreshMillis = 2000;
const shownConnections = 20;
const byId = (id) => document.getElementById(id);

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return n.toFixed(unit === 0 ? 0 : 1) + " " + units[unit];
}

function span(seconds) {
  const s = Math.floor(seconds);
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "m"]];
  return parts.filter(([n]) => n > 0).map(([n, unit]) => n + unit).concat((s % 60) + "s").join(" ");
}

const number = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 1 : 0 });
const millis = (seconds) => number(seconds * 1000) + " ms";
const percent = (share) => (share * 100).toLocaleString("en", { maximumFractionDigits: 1 }) + " %";
const counts = (byName) => Object.entries(byName ?? {}).sort().map(([name, n]) => `${name} ${n}`).join(", ") || "none";

// Text only: what a peer sends never becomes markup.
function element(name, text, ...children) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  e.append(...children);
  return e;
}

function row(first, ...rest) {
  const th = element("th", first);
  th.scope = "row";
  return element("tr", undefined, th, ...rest.map((text) => element("td", text)));
}

function status(name) {
  const e = element("span", name);
  e.className = "status";
  e.dataset.status = name;
  return e;
}

// A curve fills a box of 100 by 100 that the style stretches. It has the span of
// a whole history, so that a young one does not look like an old one.
function curve(values, places, what) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "curve");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const most = Math.max(...values, 0);
  svg.setAttribute("aria-label", values.length === 0 ? "no samples yet"
    : `${what} a second in the last five minutes: ${number(values.at(-1))} now, ${number(most)} at most`);
  const x = (i) => (100 * (places - values.length + i)) / (places - 1);
  const y = (v) => 98 - (most > 0 ? (94 * v) / most : 0);
  const line = values.map((v, i) => `${i === 0 ? "M" : "L"}${x(i).toFixed(2)} ${y(v).toFixed(2)}`).join("");
  const path = (d, name) => {
    const p = document.createElementNS("http://www.w3.org/2000/svg", "path");
    p.setAttribute("d", d);
    p.setAttribute("class", name);
    svg.append(p);
  };
  if (values.length > 1) {
    path(`${line}L100 98L${x(0).toFixed(2)} 98Z`, "area");
    path(line, "line");
  }
  return svg;
}

// What a pool's curve shows. Connections that have not said what they speak have no requests.
const sniffing = "sniffing";
const curveOf = (name) => name === sniffing ? ["accepted_per_second", "connections"] : ["requests_per_second", "requests"];

function facts(name, p, now) {
  const traffic = { "Accepted": number(p.accepted), "Received": bytes(p.bytes_received), "Sent": bytes(p.bytes_sent) };
  if (name === sniffing) return { "Accepted a second": number(now?.accepted_per_second ?? 0), ...traffic };
  return {
    "Requests a second": number(now?.requests_per_second ?? 0),
    "In flight": number(p.in_flight),
    "Errors, last minute": percent(p.error_rate),
    "Mean, last minute": millis(p.mean_seconds),
    "p99, last minute": millis(p.p99_seconds),
    ...traffic,
  };
}

function pool(name, p, history, places) {
  const [field, what] = curveOf(name);
  const samples = history.map((sample) => sample.protocols[name]);
  const card = element("article");
  card.className = "pool";
  const active = element("p", undefined, element("strong", number(p.active)), p.limit > 0 ? ` of ${number(p.limit)} open` : " open");
  active.className = "active";
  card.append(
    element("header", undefined, element("h3", name), status(p.status)), active,
    curve(samples.map((sample) => sample?.[field] ?? 0), places, what),
    element("dl", undefined, ...Object.entries(facts(name, p, samples.at(-1)))
      .flatMap(([k, v]) => [element("dt", k), element("dd", v)])),
  );
  return card;
}

function showPools({ protocols }, { history, interval_seconds }) {
  const places = 300 / interval_seconds;
  byId("pools").replaceChildren(...Object.entries(protocols).sort().map(([name, p]) => pool(name, p, history, places)));
}

function showState(health) {
  // Only what has changed is written, because this line is read aloud.
  if (byId("phase").textContent !== health.phase) byId("phase").textContent = health.phase;
  if (byId("status").textContent !== health.status) byId("status").replaceWith(Object.assign(status(health.status), { id: "status" }));
  byId("uptime").textContent = span(health.uptime_seconds);
  const { limit } = health.total;
  byId("total").textContent = `${number(health.connections)}${limit > 0 ? " of " + number(limit) : ""} connections`;
}

function showRejected({ rejected, protocols }) {
  const rows = Object.entries(rejected).sort().flatMap(([name, reasons]) => Object.entries(reasons).sort()
    .map(([reason, n]) => row(name, reason, number(protocols[name]?.rejected_recently[reason] ?? 0), number(n))));
  byId("rejected").replaceChildren(...rows);
  byId("rejected-table").hidden = rows.length === 0;
  byId("no-rejected").hidden = rows.length > 0;
}

// The account of a drain comes at its very end. Until then this says who is left.
function showDrain({ phase, protocols }, { drain }) {
  byId("drain").hidden = !drain && phase !== "draining";
  byId("drain-table").hidden = !drain;
  if (drain) {
    byId("drain-summary").textContent = `Took ${span(drain.duration_seconds)}; connections cut: ${counts(drain.forced)}` +
      `; trace id ${drain.trace_id}${drain.reason ? "; " + drain.reason : ""}.`;
    byId("steps").replaceChildren(...drain.steps.map((s) =>
      row(s.name, s.status + (s.error ? ": " + s.error : ""), millis(s.duration_seconds), counts(s.remaining))));
  } else if (phase === "draining") {
    const left = Object.entries(protocols).filter(([, p]) => p.active > 0).map(([name, p]) => [name, p.active]);
    byId("drain-summary").textContent = `Under way. Connections left: ${counts(Object.fromEntries(left))}.`;
  }
}

function showConnections({ connections }) {
  const rows = connections.map((c) => row(c.id, c.protocol, c.state, c.remote_addr,
    span(Math.max(0, Date.now() - Date.parse(c.opened)) / 1000), bytes(c.bytes_received), bytes(c.bytes_sent), c.verdict ?? ""));
  byId("connections").replaceChildren(...rows);
}

// What changed, or why nothing did. The newest version comes first.
function showConfiguration({ version, history }) {
  byId("configuration").hidden = false;
  byId("version").textContent = version;
  byId("versions").replaceChildren(...history.toReversed().map((v) => {
    const changes = (v.changes ?? []).map((c) => `${c.path}: ${c.old || "nothing"} → ${c.new || "nothing"}`);
    const line = row(v.version, new Date(v.time).toLocaleString(), v.origin, v.outcome, v.error || changes.join("; "));
    line.lastChild.className = "long";
    return line;
  }));
}

// Where the pages ask for the token, the user does so once. It is kept in memory alone.
let token = "";
let asked;

async function json(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { cache: "no-store", headers });
  if (response.status !== 401 || token) return response.json();
  asked ??= Promise.resolve(prompt("The value of admin.token"));
  token = await asked ?? "";
  if (token) return json(path);
  throw new Error("no token");
}

// The history is asked for no more often than it changes.
let metrics = { history: [], interval_seconds: 5 };
let metricsAge = Infinity;

async function freshMetrics(phase) {
  metricsAge += refreshMillis;
  if (metricsAge >= metrics.interval_seconds * 1000 || phase !== "serving") {
    metrics = await json("/metrics?format=json");
    metricsAge = 0;
  }
  return metrics;
}

async function refresh() {
  try {
    const [health, list, { servers }, configuration] = await Promise.all([
      json("/health"), json(`/connections?sort=bytes&limit=${shownConnections}`), json("/servers"),
      json("/config?format=json").catch(() => null),
    ]);
    const figures = await freshMetrics(health.phase);
    showState(health);
    showPools(health, figures);
    showRejected(health);
    showDrain(health, figures);
    if (configuration) showConfiguration(configuration);
    showConnections(list);
    byId("addresses").textContent = [...new Set(servers.flatMap((s) => s.addresses))].join(", ");
  } catch {
    byId("phase").textContent = "does not answer";
    byId("status").textContent = "";
    byId("status").removeAttribute("data-status");
  }
}

// The page moves by itself, so it can be made to stand still (WCAG 2.2, criterion 2.2.2).
let paused = false;
byId("pause").addEventListener("click", ({ currentTarget }) => {
  paused = !paused;
  currentTarget.setAttribute("aria-pressed", String(paused));
});

for (;;) {
  if (!paused) await refresh();
  await new Promise((resolve) => { setTimeout(resolve, refreshMillis); });
}
