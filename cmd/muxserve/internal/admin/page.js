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

// Text only: what a peer sends never becomes markup.
function row(first, ...rest) {
  const tr = document.createElement("tr");
  const th = document.createElement("th");
  th.scope = "row";
  th.textContent = first;
  tr.append(th);
  for (const text of rest) {
    const td = document.createElement("td");
    td.textContent = text;
    tr.append(td);
  }
  return tr;
}

async function json(path) {
  const response = await fetch(path, { cache: "no-store" });
  return response.json();
}

function showPools({ phase, uptime_seconds, protocols, rejected }) {
  byId("phase").textContent = phase;
  byId("uptime").textContent = span(uptime_seconds);
  const rows = Object.entries(protocols).sort().map(([name, p]) => {
    const reasons = Object.entries(rejected[name] ?? {}).map(([reason, n]) => `${reason} ${n}`).join(", ");
    return row(name, p.active, p.accepted, p.closed, bytes(p.bytes_received), bytes(p.bytes_sent), reasons);
  });
  byId("pools").replaceChildren(...rows);
}

function showConnections({ connections }) {
  const rows = connections.map((c) => row(c.id, c.protocol, c.state, c.remote_addr,
    span((Date.now() - Date.parse(c.opened)) / 1000), bytes(c.bytes_received), bytes(c.bytes_sent), c.verdict ?? ""));
  byId("connections").replaceChildren(...rows);
}

async function refresh() {
  try {
    const [health, list, { servers }] = await Promise.all([
      json("/health"), json(`/connections?sort=bytes&limit=${shownConnections}`), json("/servers"),
    ]);
    showPools(health);
    showConnections(list);
    byId("addresses").textContent = (servers[0]?.addresses ?? []).join(", ");
  } catch {
    byId("phase").textContent = "does not answer";
  }
  setTimeout(refresh, refreshMillis);
}

refresh();
