// The header, the chart of the open connections, and the way of new ones.

import { fromEdge, gridlines, linear, minutes, stack, ticks } from "./chart.js";
import { byId, code, draw, dress, fill, make, makeSVG, once, proto, say, strong, write } from "./dom.js";
import { brief, count, label, named, percent, plural, pools, protocols, short, sniffing, span, sum } from "./words.js";

export const tones = { healthy: "ok", degraded: "warn", overloaded: "bad", unavailable: "calm" };

function setPill(e, text, kind) {
  e.hidden = text === "";
  write(e, text);
  dress(e, `pill ${kind}`);
}

export function showHeader({ health: h, over, lost }) {
  const serving = h.phase === "serving";
  setPill(byId("phase"), over ? "stopped" : h.phase, serving && !over ? "ok" : "calm");
  setPill(byId("status"), over ? "last answer of this process" : serving ? h.status : "takes no new traffic", serving && !over ? tones[h.status] : "");
  setPill(byId("rotation"), serving && !h.ready ? "out of rotation" : "", "calm");
  setPill(byId("link"), lost ? "connection lost" : "", "warn");
  write(byId("do-rotate"), h.ready || !serving ? "Take out of rotation" : "Put back in rotation");
  for (const id of ["do-drain", "do-rotate", "do-reload"]) byId(id).disabled = !serving || lost || over;
  byId("level").disabled = lost || over;
  if (document.activeElement !== byId("level") && !byId("ask").open) byId("level").value = h.log_level ?? "info";
  const facts = { version: h.version, pid: h.pid, up: span(h.uptime_seconds), admin: location.host };
  const host = once(byId("facts"), () => Object.keys(facts).map((k) => make("div", {}, make("dt", {}, k), make("dd"))));
  Object.values(facts).forEach((v, i) => write(host.children[i].lastChild, v));
}

const securityOf = (l) => l.tls === "off" ? "plaintext" : `TLS${l.tls_optional ? " optional" : ""}`;

export function showListeners({ listeners }) {
  const key = JSON.stringify(listeners), host = byId("listeners");
  if (host.dataset.key === key) return;
  host.dataset.key = key;
  host.replaceChildren(...listeners.map((l) => make("li", {}, code(l.address), make("span", { class: "tag" }, securityOf(l)),
    l.proxy_protocol === "off" ? "" : make("span", { class: "tag" }, `PROXY ${l.proxy_protocol}`),
    ...l.protocols.map((p) => make("span", { class: `proto ${label[p] ? p : ""}` },
      make("span", { class: "long" }, label[p] ?? p), make("span", { class: "short" }, short[p] ?? p))))));
}

// showJump shows the links to the sections, with what needs attention there.
export function showJump({ health, drain, over, cut, certificates, config }) {
  const soon = (certificates?.certificates ?? []).filter((c) => c.remaining_seconds < 30 * 86400);
  const urgent = soon.some((c) => c.remaining_seconds < 7 * 86400);
  const items = [
    ["open", "Overview", "", ""],
    ["drain", "Drain", over && cut ? `${count(cut)} cut` : drain?.running ? "under way" : "", over ? "bad" : "calm"],
    ["connections", "Connections", count(health.connections), ""],
    ["closed", "Closed and refused", "", ""],
    ["certificates", "Certificates", soon.length ? `${soon.length} to renew` : "", urgent ? "bad" : "warn"],
    ["configuration", "Configuration", config ? `version ${config.version}` : "", ""],
  ];
  const host = once(byId("jump"), () => items.map(([id, text]) => make("a", { href: `#${id}` }, text, make("b"))));
  items.forEach(([, , note, kind], i) => {
    write(host.children[i].lastChild, note);
    dress(host.children[i].lastChild, note && kind ? `tone ${kind}` : "");
  });
}

// open returns the numbers of open connections: the samples of the history, behind them those that the page has taken
// itself, and the present.
function open({ metrics, recent, health, now }) {
  const active = (by) => Object.fromEntries(pools.map((p) => [p, by[p]?.active ?? 0]));
  const sample = (time, by) => ({ at: (time - now) / 1000, values: active(by) });
  const past = metrics.history.map((s) => sample(Date.parse(s.time), s.protocols)).filter((s) => s.at < 0);
  const last = past.at(-1)?.at ?? -minutes;
  return { past, fresh: recent.map((s) => sample(s.time, s.protocols)).filter((s) => s.at > last && s.at < 0), present: { at: 0, values: active(health.protocols) } };
}

let chart; // what is drawn, for the reader: samples, scales and edges
let reading = null; // the index of the sample that is read; null for the present

export function showHero(state) {
  const svg = byId("hero"), width = svg.clientWidth || 800, narrow = width < 520;
  const height = narrow ? 220 : 268, [left, right, top, bottom] = [42, 8, 22, 24];
  const { past, fresh, present } = open(state), samples = fromEdge([...past, ...fresh, present]), { limit } = state.health.total;
  const peak = Math.max(4, ...samples.map((s) => sum(s.values)));
  const near = limit > 0 && limit <= peak * 2.2; // A far limit must not flatten the curve.
  const most = near ? Math.max(limit, peak) * 1.04 : peak * 1.25;
  const x = linear(-minutes, 0, left, width - right), y = linear(0, most, height - bottom, top);
  svg.setAttribute("height", height);
  svg.replaceChildren();
  gridlines(svg, ticks(most, 4), y, left, width - right, brief);
  for (const t of narrow ? [-300, -150, 0] : [-300, -240, -180, -120, -60, 0]) {
    const anchor = t === 0 ? "end" : t === -minutes ? "start" : "middle";
    draw(svg, "text", { x: x(t), y: height - 6, "text-anchor": anchor }, t === 0 ? "now" : `−${-t / 60} min`);
  }
  nameBands(svg, stack(svg, pools, samples, x, y), samples, x, y);
  if (limit > 0) {
    const at = near ? y(limit) : top - 8;
    draw(svg, "line", { class: "limit", x1: left, x2: width - right, y1: at, y2: at });
    draw(svg, "text", { class: "strong halo", x: width - right, y: at - 6, "text-anchor": "end" }, `limit ${count(limit)}${near ? "" : ", above this scale"}`);
  }
  chart = { samples, x, y, width, top, floor: height - bottom, limit };
  showReading();
}

// nameBands writes the names of the bands into those that are high enough, near their beginning.
function nameBands(svg, bands, samples, x, y) {
  const i = Math.min(samples.length - 1, samples.findIndex((s) => x(s.at) > x(samples[0].at) + 24));
  if (i < 0) return;
  for (const { name, low, high } of bands) {
    if (y(low[i]) - y(high[i]) < 20 || x(0) - x(samples[i].at) < 90) continue;
    draw(svg, "text", { class: "band halo", x: x(samples[0].at) + 10, y: (y(low[i]) + y(high[i])) / 2 + 4 }, label[name]);
  }
}

// showReading marks the moment that is read, and tells its figures.
function showReading() {
  const { samples, x, y, width, top, floor, limit } = chart, svg = byId("hero");
  svg.querySelector(".reading")?.remove();
  const last = samples.length - 1, i = Math.min(last, reading ?? last), s = samples[i], all = sum(s.values);
  const seconds = Math.round(-s.at), when = reading === null || seconds === 0 ? "now" : `${seconds} s ago`;
  const g = draw(svg, "g", { class: "reading" });
  if (reading !== null) draw(g, "line", { class: "cross", x1: x(s.at), x2: x(s.at), y1: top, y2: floor });
  let base = 0;
  for (const p of pools) {
    base += s.values[p];
    if (s.values[p] > 0 || p !== sniffing) draw(draw(g, "g", { class: p }), "circle", { class: "dot", cx: x(s.at), cy: y(base), r: 4 });
  }
  showLegend(s.values, all, limit, when);
  const reader = byId("reader");
  reader.setAttribute("aria-valuenow", Math.round(s.at));
  const spoken = reading === null ? "now" : `${when}: ${count(all)} open. ${named(s.values)}`;
  if (reader.getAttribute("aria-valuetext") !== spoken) reader.setAttribute("aria-valuetext", spoken);
  const tip = byId("tip");
  tip.hidden = reading === null;
  if (reading === null) return;
  tip.replaceChildren(make("b", {}, `${when}, ${count(all)} open`), make("ul", {}, ...pools.toReversed().map((p) =>
    make("li", {}, make("span", { class: `proto ${p}` }, label[p]), make("b", {}, count(Math.round(s.values[p])))))));
  const place = x(s.at) + 210 > width ? x(s.at) - 204 : x(s.at) + 14;
  tip.style.setProperty("transform", `translate(${Math.max(0, place)}px, 26px)`);
}

function showLegend(values, all, limit, when) {
  const names = pools.toReversed();
  const host = once(byId("legend"), () => [
    make("p", {}, make("b", { class: "big" }), make("span", { class: "quiet" })),
    make("ul", {}, ...names.map((p) => make("li", { class: p }, make("span", { class: `proto ${p}` }, label[p]), make("b"), make("i"), make("span", { class: "share" })))),
  ]);
  const [head, list] = host.children;
  write(head.firstChild, count(all));
  write(head.lastChild, `open ${when}${limit > 0 ? `, ${percent(all / limit)} of ${count(limit)}` : ""}`);
  names.forEach((p, i) => {
    const [, n, part, bar] = list.children[i].children, share = all ? values[p] / all : 0;
    write(n, count(values[p]));
    write(part, percent(share));
    fill(bar, share * 100);
  });
}

// The chart is read by pointer and by keys. The legend follows, so that a phone needs no tip.
function read(i) {
  reading = i;
  if (chart) showReading();
}

function nearest(clientX) {
  const at = clientX - byId("hero").getBoundingClientRect().left;
  const distance = (s) => Math.abs(chart.x(s.at) - at);
  return chart.samples.reduce((best, s, i) => distance(s) < distance(chart.samples[best]) ? i : best, 0);
}

export function listenToReader() {
  const reader = byId("reader");
  for (const kind of ["pointermove", "pointerdown"]) reader.addEventListener(kind, (e) => { if (chart) read(nearest(e.clientX)); });
  for (const kind of ["pointerleave", "blur"]) reader.addEventListener(kind, () => read(null));
  reader.addEventListener("keydown", (e) => {
    if (!chart) return;
    const last = chart.samples.length - 1, i = reading ?? last;
    const to = { ArrowLeft: i - 1, ArrowDown: i - 1, ArrowRight: i + 1, ArrowUp: i + 1, PageDown: i - 6, PageUp: i + 6, Home: 0, End: last, Escape: null }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    read(to === null ? null : Math.max(0, Math.min(last, to)));
  });
}

// showSay says in one sentence how the server is.
export function showSay({ health: h, metrics, over }) {
  const e = byId("say");
  if (over) return say(e, "calm", "The server has stopped. This is what it said last.");
  if (h.phase !== "serving") return say(e, "calm", `${plural(h.connections, "connection")} left. The drain says what happens to them.`);
  const refused = sum(Object.values(h.protocols).map((p) => sum(p.rejected_last_minute))), { total, thresholds } = h;
  const above = (status) => protocols.filter((p) => h.protocols[p]?.status === status);
  const [full, filling] = [above("overloaded"), above("degraded")];
  const also = filling.length ? ` ${filling.map((p) => label[p]).join(" and ")} ${filling.length > 1 ? "are" : "is"} filling up.` : "";
  if (full.length) {
    const p = h.protocols[full[0]];
    return say(e, "bad", strong(`${label[full[0]]} is ${p.active >= p.limit ? "full" : "nearly full"}`), `: ${count(p.active)} of ${count(p.limit)} open, ` +
      `${count(sum(p.rejected_last_minute))} refused in the last minute. Raise `, code(`${full[0]}.max_connections`), ` or add a server.${also}`);
  }
  if (total.status === "overloaded") {
    return say(e, "bad", strong("The server is nearly full"), `: ${count(h.connections)} of ${count(total.limit)} connections open. Raise `, code("limits.max_connections"), " or add a server.");
  }
  if (filling.length || total.status === "degraded") {
    const what = filling.length ? filling.map((p) => label[p]).join(" and ") : "All protocols together";
    return say(e, "warn", strong(`${what} above ${percent(thresholds.degraded)}`), ` of the limit. ${plural(refused, "connection")} refused in the last minute.`);
  }
  const { accepted } = lastMinute(metrics);
  return say(e, "ok", `All protocols are healthy. ${count(refused)} of ${count(Math.max(accepted, refused))} new connections were refused in the last minute.`);
}

// showData shows the samples of each half minute as a table.
export function showData(state) {
  if (!byId("data-body").closest("details").open) return;
  once(byId("data-head"), () => [make("tr", {}, ...["When", ...pools.map((p) => label[p]), "Total"].map((t) => make("th", { scope: "col" }, t)))]);
  const { past, present } = open(state), rows = [...past.filter((_, i) => i % 6 === past.length % 6), present].reverse();
  byId("data-body").replaceChildren(...rows.map((s) => make("tr", {}, make("th", { scope: "row", class: "full" }, s.at === 0 ? "now" : `${Math.round(-s.at)} s ago`),
    ...pools.map((p) => make("td", { "data-label": label[p] }, count(s.values[p]))), make("td", { "data-label": "Total" }, count(sum(s.values))))));
}

// lastMinute counts the connections of the last minute: those that were accepted, and those that were given their protocol.
function lastMinute({ history, interval_seconds: interval, totals }) {
  const samples = history.slice(-60 / interval);
  const total = samples.length * interval < 60 ? (p) => totals.pools[p]?.accepted ?? 0 // Everything since the start.
    : (p) => sum(samples.map((s) => (s.protocols[p]?.accepted_per_second ?? 0) * interval));
  return { accepted: Math.round(total(sniffing)), recognised: Object.fromEntries(protocols.map((p) => [p, Math.round(total(p))])) };
}

export const reasonName = {
  limit: "limit", per_ip_limit: "per-address limit", no_match: "no known protocol", sniff_timeout: "too slow to say", sniff_too_large: "too much to say",
  silent: "silent", draining: "draining", tls_handshake: "TLS handshake", proxy_header: "PROXY header", inadequate_security: "weak cipher",
};

function arrow() {
  const svg = makeSVG({ class: "to", viewBox: "0 0 20 12", "aria-hidden": "true" });
  draw(svg, "path", { d: "M1 6h17M13 1.5l5 4.5-5 4.5" });
  return svg;
}

// showFunnel shows how new connections came to their protocols. A reason is a button that filters the table of ended ones.
export function showFunnel({ health, metrics }, filter) {
  const step = (text, name, ...rest) => make("div", { class: `step ${name}` }, make("b"), make("span", { class: "quiet" }, text), ...rest);
  const host = once(byId("funnel"), () => [
    step("accepted, last minute", ""), arrow(), step("being recognised", ""), arrow(),
    step("recognised", "recognised", make("span", { class: "split", role: "img" }, ...protocols.map((p) => make("i", { class: p })))), arrow(),
    step("refused", "refused", make("span", { class: "chips" })),
  ]);
  const [first, , second, , third, , last] = host.children, { accepted, recognised } = lastMinute(metrics), reasons = {};
  for (const { rejected_last_minute: by } of Object.values(health.protocols)) {
    for (const [reason, n] of Object.entries(by)) reasons[reason] = (reasons[reason] ?? 0) + n;
  }
  write(first.firstChild, count(accepted));
  write(second.firstChild, count(health.protocols[sniffing]?.active ?? 0));
  write(third.firstChild, count(sum(recognised)));
  write(last.firstChild, count(sum(reasons)));
  const split = third.lastChild, chips = last.lastChild, key = JSON.stringify(reasons);
  protocols.forEach((p, i) => fill(split.children[i], recognised[p]));
  split.setAttribute("aria-label", named(recognised) || "none");
  if (chips.dataset.key !== key && !chips.contains(document.activeElement)) {
    chips.dataset.key = key;
    chips.replaceChildren(...Object.entries(reasons).sort((a, b) => b[1] - a[1]).map(([reason, n]) =>
      make("button", { type: "button", class: "chip", click: filter }, reasonName[reason] ?? reason, make("b", {}, count(n)))));
  }
  showCure(metrics.totals.refusals);
}

// showCure tells what the most frequent refusal of the last minute was, and what an operator can do.
function showCure(refusals = []) {
  const worst = refusals.filter((r) => r.last_minute > 0 && r.cure).sort((a, b) => b.last_minute - a.last_minute)[0];
  byId("cure").hidden = !worst;
  if (worst) write(byId("cure"), `${worst.last_minute === 1 ? "Once" : `${count(worst.last_minute)} times`} in the last minute: ${worst.detail}. What helps: ${worst.cure}.`);
}
