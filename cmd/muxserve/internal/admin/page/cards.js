// A card for each protocol: its limit, its requests, its latency and what was refused, over five minutes.

import { fromEdge, gridlines, linear, minutes, path, roundUp } from "./chart.js";
import { byId, draw, dress, fill, make, makeSVG, once, proto, write } from "./dom.js";
import { tones } from "./overview.js";
import { brief, count, figure, label, percent, protocols, span, sum } from "./words.js";

const gutter = 44; // for the scales, on the right

// A chart shows one or two figures of the samples. least is the top of the scale where all figures are small.
const requests = { name: "requests a second", height: 58, series: { v: (s) => s.requests_per_second }, least: 4, text: brief };
const latency = (what) => ({ name: `${what}p50, p99`, height: 50, series: { p50: (s) => s.p50_seconds, p99: (s) => s.p99_seconds }, least: 0.001, text: span });
const refused = { name: "refused a second", height: 40, series: { v: (s) => s.rejected_per_second }, least: 1, text: brief, bars: true };
const messages = { ...requests, name: "messages a second", series: { v: (s) => s.messages_received_per_second + s.messages_sent_per_second } };

const charts = {
  http1: [requests, latency(""), refused],
  http2: [requests, latency(""), refused],
  grpc: [{ ...requests, name: "calls a second" }, latency(""), refused],
  websocket: [messages, latency("session "), refused],
};

function makeCard(p) {
  const block = ({ name, height }) => make("div", {}, make("p", { class: "rate" }, make("span", {}, name), make("b")), makeSVG({ height, role: "img" }));
  return make("article", { class: `panel card ${p}`, "aria-labelledby": `card-${p}` },
    make("div", { class: "head" }, make("h3", { id: `card-${p}` }, proto(p)), make("span", { class: "small" }), make("span")),
    make("p", { class: "open" }, make("b"), make("span", { class: "quiet" }), make("span", { class: "quiet small" })),
    make("div", { class: "meter", role: "meter", "aria-valuemin": 0, "aria-label": `${label[p]} connections, of their limit` }, make("i"), make("i")),
    ...charts[p].map(block),
    make("p", { class: "ends small quiet" }, make("span", {}, "−5 min"), make("span", {}, "now")));
}

export function showCards(state) {
  const host = once(byId("cards"), () => protocols.map(makeCard));
  protocols.forEach((p, i) => showCard(host.children[i], p, state));
}

const none = { status: "healthy", limit: 0, ratio: 0, active: 0, error_rate: 0, rejected_last_minute: {} };

function showCard(card, p, state) {
  const { health, over } = state, h = health.protocols[p] ?? none, total = health.total.limit, serving = health.phase === "serving" && !over;
  const [head, open, meter, ...blocks] = card.children;
  const status = serving ? [h.status, tones[h.status]] : h.active ? ["leaving", "calm"] : ["gone", ""];
  write(head.lastChild, status[0]);
  dress(head.lastChild, `pill plain ${status[1]}`);
  const limit = h.limit || total, ratio = limit ? h.active / limit : 0;
  write(open.children[0], count(h.active));
  write(open.children[1], h.limit ? `of ${count(h.limit)} open` : total ? `open, of ${count(total)} for all` : "open, no limit");
  write(open.children[2], limit ? percent(ratio) : "");
  meter.hidden = !limit;
  fill(meter, Math.min(100, ratio * 100));
  meter.setAttribute("aria-valuemax", limit);
  meter.setAttribute("aria-valuenow", Math.min(limit, h.active));
  meter.setAttribute("aria-valuetext", `${count(h.active)} of ${count(limit)}`);
  [health.thresholds.degraded, health.thresholds.overloaded].forEach((at, i) => meter.children[i].style.setProperty("--at", at));

  const last = state.metrics.history.at(-1)?.protocols[p];
  const figures = [
    figure(last ? charts[p][0].series.v(last) : 0),
    last && last.p99_seconds > 0 ? `${span(last.p50_seconds)}, ${span(last.p99_seconds)}` : "–",
    `${count(sum(h.rejected_last_minute))} last minute`,
  ];
  charts[p].forEach((chart, i) => {
    const [rate, svg] = blocks[i].children;
    write(rate.lastChild, figures[i]);
    drawChart(svg, chart, p, state);
    svg.setAttribute("aria-label", `${label[p]}, ${chart.name} over five minutes; now ${figures[i]}`);
  });
  const errors = head.children[1], kind = h.error_rate > 0.05 ? "tone bad" : h.error_rate > 0.01 ? "tone warn" : "quiet";
  write(errors, h.error_rate > 0 ? `${percent(h.error_rate)} errors` : "");
  dress(errors, `small end ${kind}`);
}

function drawChart(svg, { series, height, least, text, bars }, p, state) {
  const width = svg.clientWidth || 240, right = width - gutter, names = Object.keys(series);
  const samples = fromEdge(state.metrics.history.map((s) => ({
    at: (Date.parse(s.time) - state.now) / 1000,
    values: Object.fromEntries(names.map((n) => [n, s.protocols[p] ? series[n](s.protocols[p]) : 0])),
  })));
  const most = roundUp(Math.max(least, ...samples.flatMap((s) => Object.values(s.values))));
  const x = linear(-minutes, 0, 0, right), y = linear(0, most, height - 4, 8);
  svg.replaceChildren();
  gridlines(svg, height > 50 ? [0, most / 2, most] : [0, most], y, 0, right, (v) => v === 0 ? "0" : text(v), true);
  if (samples.length === 0) return;
  const g = draw(svg, "g", { class: p });
  if (bars) {
    for (const { at, values: { v } } of samples) {
      if (v > 0 && at <= 0) draw(g, "rect", { class: "bar", x: Math.max(0, x(at) - 2), y: y(v), width: 3, height: y(0) - y(v) });
    }
    return;
  }
  for (const [i, n] of names.entries()) {
    const line = samples.map((s) => [x(Math.min(0, s.at)), y(s.values[n])]), area = i === 0;
    if (area) draw(g, "path", { class: "area", d: `${path(line)}L${line.at(-1)[0].toFixed(1)} ${y(0)}L${line[0][0].toFixed(1)} ${y(0)}Z` });
    draw(g, "path", { class: i === 0 ? "edge" : "edge second", d: path(line) });
  }
  const end = samples.at(-1);
  draw(g, "circle", { class: "dot", cx: x(Math.min(0, end.at)), cy: y(end.values[names.at(-1)]), r: 3.5 });
}
