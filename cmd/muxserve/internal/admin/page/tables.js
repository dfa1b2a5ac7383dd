// The tables. Rows are kept by key, so that a button does not move or vanish while it has the focus.

import { byId, code, fill, make, pill, proto, sub, write } from "./dom.js";
import { ago, count, plural, protocols, size, span } from "./words.js";

// A column has a name, a function cells of the item that returns what is in it, and a function key that returns a text
// which changes whenever that does. Roles are repeated, because rows that stack lose them.
function table(host, columns) {
  const heading = (c) => c.sort ? make("button", { type: "button", "data-sort": c.sort }, c.name) : c.hidden ? make("span", { class: "sr" }, c.name) : c.name;
  host.setAttribute("role", "table");
  host.append(
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...columns.map((c) => make("th", { scope: "col", role: "columnheader", class: c.style }, heading(c))))),
    make("tbody", { role: "rowgroup" }));
  const body = host.lastChild, rows = new Map();
  const newRow = () => make("tr", { role: "row" }, ...columns.map((c, i) => i === 0 ? make("th", { scope: "row", role: "rowheader", class: c.style })
    : make("td", { role: "cell", class: c.style, "data-label": c.bare ? undefined : c.name })));
  return (items, keyOf) => {
    const seen = new Set();
    items.forEach((item, place) => {
      const key = keyOf(item);
      let row = rows.get(key);
      if (!row) rows.set(key, row = newRow());
      seen.add(row);
      columns.forEach((c, i) => {
        const state = String(c.key(item)), cell = row.children[i];
        if (cell.dataset.key === state) return;
        cell.dataset.key = state;
        cell.replaceChildren(...[c.cells(item)].flat());
      });
      if (body.children[place] !== row && !(row.isConnected && body.contains(document.activeElement))) body.insertBefore(row, body.children[place] ?? null);
    });
    for (const [key, row] of rows) {
      if (seen.has(row) || row.contains(document.activeElement)) continue;
      row.remove();
      rows.delete(key);
    }
    host.hidden = items.length === 0;
  };
}

const mono = (text) => make("span", { class: "mono" }, text);
const peerOf = (c) => c.remote_addr || "unknown peer";

// The age of rows, from what the server calls now.
let now = 0;
export const setNow = (millis) => { now = millis; };
const age = (time) => Math.max(0, now - Date.parse(time)) / 1000;

function securityOf(c) {
  if (!c.tls) return "";
  return `, ${c.tls.version}${c.tls.server_name ? ` for ${c.tls.server_name}` : ""}${c.tls.client_subject ? `, client ${c.tls.client_subject}` : ""}`;
}

const unit = { grpc: "call", websocket: "session" };

export const liveTable = (close) => table(byId("live"), [
  { name: "Peer", style: "full", key: peerOf, cells: (c) => [mono(peerOf(c)), sub(`id ${c.id}, on ${c.local_addr || "an unknown address"}${securityOf(c)}`)] },
  { name: "Protocol", key: (c) => c.protocol + c.state, cells: (c) => [proto(c.protocol), sub(c.state)] },
  { name: "Age", sort: "age", style: "num", key: (c) => `${span(age(c.opened))} ${c.requests}`, cells: (c) => [span(age(c.opened)), sub(plural(c.requests, unit[c.protocol] ?? "request"))] },
  { name: "Bytes", sort: "bytes", style: "num", key: (c) => `${c.bytes_received} ${c.bytes_sent}`,
    cells: (c) => [size(c.bytes_received + c.bytes_sent), sub(`${size(c.bytes_received)} in, ${size(c.bytes_sent)} out`)] },
  { name: "Recognised by", style: "gap full", key: (c) => c.verdict, cells: (c) => c.verdict ?? "" },
  { name: "Close", hidden: true, bare: true, style: "act", key: (c) => c.id, cells: (c) => make("button", {
    type: "button", class: "btn small-btn", "aria-label": `Close connection ${c.id} of ${peerOf(c)}`, click: () => close(c) }, "Close") },
]);

// What an operator can do about the end of a connection, by its reason. Texts at odd places are keys.
const hints = {
  limit: (p) => ["The pool is full. Raise ", protocols.includes(p) ? `${p}.max_connections` : "limits.max_connections", ", or add a server."],
  per_ip_limit: () => ["One client has all its places. Behind a balancer set ", "proxy_protocol", "; else raise ", "limits.per_address", "."],
  no_match: () => ["No protocol that is served here. Port scans do this, too."],
  sniff_timeout: () => ["A slow network, or raise ", "sniff.timeout", "."],
  silent: () => ["Often a health check that only connects: point it at ", "/readyz", "."],
  tls_handshake: () => ["See the client's log; the log level debug tells the error."],
  proxy_header: () => ["If the peer is a balancer of yours, add it to ", "proxy_protocol.trusted", "."],
  ping_timeout: () => ["The peer was gone without a close, as phones are."],
  header_timeout: () => ["The client was too slow with its header."],
  slow_body: () => ["The client stopped sending its body."],
  write_stalled: () => ["The client stopped reading."],
  request_timeout: () => ["The request took longer than ", "request_timeout", " allows."],
  too_many_resets: () => ["The client reset streams faster than is allowed."],
  reset: () => ["The client broke off."],
  timeout: () => ["The client did not read or write in time."],
  max_age: () => ["Normal: it was told to connect anew."],
  forced: () => ["Its client has to leave when it is told to, or the work needs a longer ", "drain.timeout", "."],
  header_table: () => ["Normal: the client asked for a smaller HPACK table, and was told to connect anew."],
  disconnected: () => ["By the admin listener."],
};
const hint = (c) => (hints[c.reason]?.(c.protocol) ?? ["Normal."]).map((text, i) => i % 2 ? code(text) : text);
const kinds = { refused: "warn", failed: "warn", cut: "bad" };

export const closedTable = () => table(byId("closed-table"), [
  { name: "Peer", style: "full", key: (c) => ago(age(c.closed)), cells: (c) => [mono(peerOf(c)), sub(ago(age(c.closed)))] },
  { name: "Protocol", bare: true, style: "nw", key: (c) => c.protocol, cells: (c) => proto(c.protocol) },
  { name: "Outcome", bare: true, style: "corner", key: (c) => c.outcome, cells: (c) => [pill(c.outcome, kinds[c.outcome]), sub(code(c.reason))] },
  { name: "What happened, and what to do", bare: true, style: "full", key: (c) => c.id,
    cells: (c) => [`${c.detail ? `${c.detail}; ` : ""}open for ${span(Math.max(0, Date.parse(c.closed) - Date.parse(c.opened)) / 1000)}, ` +
      `${plural(c.requests, unit[c.protocol] ?? "request")}, ${size(c.bytes_received)} received`, sub(...hint(c))] },
]);

const day = 86400;
const urgency = (c) => c.remaining_seconds < 7 * day ? "bad" : c.remaining_seconds < 30 * day ? "warn" : "ok";
const advice = { bad: ", renew now", warn: ", soon", ok: "" };
const commonName = (subject) => subject.match(/CN=((?:[^,+\\]|\\.)*)/)?.[1] ?? subject;

function expiry(c) {
  const left = c.remaining_seconds, kind = urgency(c);
  if (left < 0) return `expired ${ago(-left)}`;
  return (left < 2 * day ? `in ${span(left)}` : `in ${count(left / day)} days`) + advice[kind];
}

export const certificateTable = () => table(byId("certificates-table"), [
  { name: "Subject", style: "full", key: (c) => c.serial, cells: (c) => [mono(c.names.join(", ") || commonName(c.subject)), sub(`${commonName(c.issuer)}, ${c.key_type}`)] },
  { name: "Used on", key: (c) => c.listener, cells: (c) => code(c.listener) },
  { name: "Expires", key: expiry, cells: (c) => {
    const kind = urgency(c), life = (Date.parse(c.not_after) - Date.parse(c.not_before)) / 1000;
    return [make("span", { class: kind === "ok" ? "" : `tone ${kind}` }, expiry(c)), sub(new Date(c.not_after).toISOString().slice(0, 10)),
      fill(make("span", { class: `life ${kind}` }), Math.max(0, Math.min(100, 100 * c.remaining_seconds / life)))];
  } },
]);

const outcomeOf = (v) => v.current ? pill("in force", "ok") : v.outcome === "failed" ? pill("failed", "warn") : v.outcome;
const lines = (v) => v.error ? v.error.split("\n").map((line) => make("span", { class: "change" }, line))
  : v.changes?.length ? v.changes.map((c) => make("span", { class: "change" }, code(c.path), " ", make("del", {}, c.old || "nothing"), " → ", make("ins", {}, c.new || "nothing")))
  : ["as started"];

export const configurationTable = (rollback) => table(byId("configuration-table"), [
  { name: "Version", key: (v) => v.current, cells: (v) => [make("b", {}, String(v.version)), sub(outcomeOf(v))] },
  { name: "When and who", key: (v) => ago(age(v.time)), cells: (v) => [ago(age(v.time)), sub(v.origin)] },
  { name: "What changed", style: "full", key: (v) => v.time, cells: lines },
  { name: "Roll back", hidden: true, bare: true, style: "act", key: (v) => v.current, cells: (v) => v.current || v.outcome === "failed" ? []
    : make("button", { type: "button", class: "btn small-btn", "aria-label": `Roll back to version ${v.version}`, click: () => rollback(v.version) }, "Roll back") },
]);

// radios fills a group of radio buttons: [value, content] each.
export function radios(host, name, options, change) {
  host.append(...options.map(([value, content], i) => {
    const input = make("input", { type: "radio", name, value, checked: i === 0 });
    input.addEventListener("change", () => change(value));
    return make("label", {}, input, make("span", {}, content));
  }));
}

// choose chooses a radio button as a user would.
export function choose(name, value) {
  const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
  input.checked = true;
  input.dispatchEvent(new Event("change"));
}

export const protocolChoices = () => [["", "All"], ...protocols.map((p) => [p, proto(p)])];
export const outcomeChoices = [["", "All"], ["refused", "Refused"], ["failed", "Failed"], ["cut", "Cut"], ["closed", "Closed"]];

export function markSorted(order) {
  for (const button of byId("live").querySelectorAll("thead button")) {
    if (button.dataset.sort === order) button.parentElement.setAttribute("aria-sort", "descending");
    else button.parentElement.removeAttribute("aria-sort");
  }
}

export function showCount(e, shown, all, filtered) {
  write(e, all > 0 ? `${count(shown)} of ${count(all)}${filtered ? " that match" : ""}` : filtered ? "none matches" : "none");
}

