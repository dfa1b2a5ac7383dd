// The drain: its plan while none is under way, its six steps, the curve of what is left, and who was cut.

import { gridlines, linear, roundUp, stack, ticks } from "./chart.js";
import { announce, byId, code, draw, dress, fill, make, once, say, strong, write } from "./dom.js";
import { brief, count, exact, label, named, plural, pools, span, sum, tenths } from "./words.js";

const steps = {
  announce: "readiness off, all is served",
  "drain-delay": "the balancer notices",
  "stop-accepting": "listeners close, clients are told",
  "wait-connections": "what is under way ends by itself",
  "force-close": "what is left is cut",
  cleanup: "always runs",
};
const bandName = { "drain-delay": "delay", "stop-accepting": "telling", "wait-connections": "waiting" };

// timeline joins what has happened with the plan: each step with its beginning, its end and its state. The plan has the
// steps in their order; until the drain begins to cut, none goes on behind the deadline.
function timeline(d) {
  const deadline = deadlineOf(d), ended = d.account?.steps ?? d.steps ?? [], forced = sum(d.account?.forced);
  let at = 0;
  return d.plan.steps.map(({ name, planned_seconds: planned }) => {
    const result = ended.find((s) => s.name === name), from = at, skipped = d.plan.skip_steps.includes(name);
    const running = !result && d.running && d.step === name, acts = name === "force-close" || name === "cleanup";
    const end = acts || skipped ? from + planned : name === "wait-connections" ? deadline : Math.min(deadline, from + planned);
    at = result ? from + result.duration_seconds : Math.max(end, running ? d.elapsed_seconds : from);
    const amiss = result && result.status !== "done" && result.status !== "skipped";
    const cut = result && forced > 0 && (name === "force-close" || (name === "wait-connections" && amiss));
    const state = cut ? "cut" : amiss ? "amiss" : result ? "done" : running ? "on" : "";
    return { name, skipped, from, to: at, result, state, elapsed: running ? d.elapsed_seconds - from : 0 };
  });
}

const stepOf = (line, name) => line.find((step) => step.name === name);
const deadlineOf = (d) => d.deadline ? (Date.parse(d.deadline) - Date.parse(d.started)) / 1000 : d.plan.timeout_seconds;
const firstOf = (d) => Math.max(...d.history.map((point) => sum(point.remaining)), d.left, 0);

export function showDrain({ drain: d }) {
  const section = byId("drain"), active = d.running || d.over, main = byId("main");
  const place = active ? byId("notice").nextElementSibling : byId("connections");
  if (active ? place !== section : section.nextElementSibling !== place) main.insertBefore(section, place);
  byId("gauges").hidden = byId("falls").hidden = !active;
  const list = byId("steps"), names = d.plan.steps.map((step) => step.name);
  if (names.some((name, i) => list.children[i]?.querySelector("b").textContent !== name)) list.replaceChildren(); // A reload changes the order.
  once(list, () => names.map((name) =>
    make("li", {}, make("span", { class: "rail" }), make("b", {}, name), make("span", {}, steps[name]), make("em"))));
  if (active) showActive(d);
  else showPlan(d);
}

function showPlan(d) {
  const line = timeline(d), telling = stepOf(line, "stop-accepting"), waiting = stepOf(line, "wait-connections"), cutting = stepOf(line, "force-close");
  write(byId("drain-note"), "the plan; nothing is under way");
  const { from, to } = telling, told = to > from ? `from second ${+from.toFixed(2)} to second ${+to.toFixed(2)}` : from > 0 ? `after ${span(from)}` : "at once";
  say(byId("drain-say"), "", `A drain that began now would ${telling.skipped ? "not tell its clients to leave" : `tell its clients to leave ${told}`}, and ${
    cutting.skipped ? "no longer wait for" : "cut"} what is left after ${span(cutting.from)}.`);
  const texts = {
    announce: "at once",
    "stop-accepting": to > from ? `spread over ${span(to - from)}` : "at once",
    "wait-connections": `until ${span(waiting.to)}`,
  };
  line.forEach((step, i) => {
    const li = byId("steps").children[i], length = span(step.to - step.from);
    dress(li, "");
    li.removeAttribute("aria-current");
    fill(li.firstChild, 0);
    write(li.lastChild, step.skipped ? "skipped" : texts[step.name] ?? (step.name === "drain-delay" ? length : `at most ${length}`));
  });
  byId("cutlist").hidden = true;
}

// exitCode is what the process ends with, where that follows from the account.
function exitCode({ account: { forced, reason } }) {
  return reason ? "" : ` Exit code ${sum(forced) > 0 ? 3 : 0}.`;
}

// sayNoticing says what is served while the balancer is to notice, which it may have to before or after the listeners close.
function sayNoticing(d, line) {
  const telling = stepOf(line, "stop-accepting"), waits = d.step === "drain-delay" ? "Waiting for the balancer to notice. " : "";
  if (telling.skipped) return `${waits}${plural(d.left, "connection")} and new ones are served as before`;
  if (telling.result) return `${waits}The listeners are closed. ${plural(d.told, "connection was", "connections were")} told to leave, ${count(d.left)} left`;
  return `${waits}${plural(d.left, "connection")} and new ones are served as before; in ${Math.max(0, Math.ceil(telling.from - d.elapsed_seconds))} s the listeners close`;
}

function sayDrain(d, line, first) {
  const e = byId("drain-say"), cut = sum(d.account?.forced);
  if (d.over) {
    const begin = `Drained in ${exact(d.account.duration_seconds)}. ${plural(first, "connection was", "connections were")} open; `;
    if (cut) return say(e, "bad", begin, strong(`${count(cut)} ${cut === 1 ? "was" : "were"} cut`), `${d.account.reason ? "" : " when the time was up"}: ${named(d.account.forced)}.${exitCode(d)}`);
    return say(e, "calm", `${begin}nothing was cut.${exitCode(d)}`);
  }
  const last = stepOf(line, "force-close"), seconds = Math.max(0, Math.ceil(last.from - d.elapsed_seconds));
  const cutting = last.skipped ? `; waiting ends in ${seconds} s.` : `; cutting what is left in ${seconds} s.`;
  switch (d.step) {
    case "announce":
    case "drain-delay":
      return say(e, "calm", `${sayNoticing(d, line)}${cutting}`);
    case "stop-accepting":
      return say(e, "calm", `Telling clients to leave, spread over ${span(d.plan.spread_seconds)}: ${count(d.told)} told, `, strong(`${count(d.left)} left`), cutting);
    case "wait-connections":
      return say(e, "calm", `${plural(d.told, "connection was", "connections were")} told to leave. `, strong(`${count(d.left)} left`), d.left ? ` (${named(d.remaining)}), finishing what they began${cutting}` : ".");
    case "force-close":
      return say(e, "calm", "Cutting what is left.");
    default:
      return say(e, "calm", `Cleaning up. ${count(d.left)} left.`);
  }
}

let spoken = "";

function showActive(d) {
  const line = timeline(d), last = stepOf(line, "force-close"), deadline = deadlineOf(d), first = firstOf(d), cut = sum(d.account?.forced);
  write(byId("drain-note"), `trace id ${d.trace_id}`);
  sayDrain(d, line, first);
  showGauges([
    ["elapsed", tenths(d.elapsed_seconds), ""],
    d.over ? ["deadline was", tenths(deadline), ""] : [last.skipped ? "waiting ends in" : "cutting in", tenths(Math.max(0, last.from - d.elapsed_seconds)), ""],
    ["told", count(d.told), ""], ["left", count(d.left), ""], ["cut", count(cut), cut ? "tone bad" : ""],
  ]);
  line.forEach((step, i) => showStep(byId("steps").children[i], step, d.plan, cut));
  showFalls(d, line, deadline, first, cut);
  showCut(d.cut ?? [], d.account);
  const key = d.over ? "over" : d.step;
  if (key && key !== spoken) {
    spoken = key;
    announce(`Drain, ${key}: ${byId("drain-say").textContent}`);
  }
}

function showGauges(gauges) {
  const host = once(byId("gauges"), () => gauges.map(() => make("div", {}, make("dt"), make("dd"))));
  gauges.forEach(([name, value, kind], i) => {
    const [dt, dd] = host.children[i].children;
    write(dt, name);
    write(dd, value);
    dress(dd, kind);
  });
}

function showStep(li, { name, from, to, result, state, elapsed }, plan, cut) {
  const left = result ? `${count(sum(result.remaining))} left` : "", bound = Math.max(to - from, 0.001);
  const took = result && exact(result.duration_seconds);
  const text = !result ? state === "on" ? `${exact(elapsed)} of ${exact(bound)}` : plan.skip_steps.includes(name) ? "skipped" : "to come"
    : result.status === "skipped" ? "skipped"
    : name === "force-close" && (state === "cut" || cut === 0) ? cut ? `${count(cut)} cut in ${took}` : "nothing to cut"
    : result.status === "timed_out" ? `time was up, ${left}`
    : result.status === "cut" ? `ended early, ${left}`
    : result.status === "failed" ? `failed after ${took}, ${left}`
    : `${took}, ${left}`;
  dress(li, state);
  if (state === "on") li.setAttribute("aria-current", "step");
  else li.removeAttribute("aria-current");
  fill(li.firstChild, result ? 100 : state === "on" ? Math.min(100, 100 * elapsed / bound) : 0);
  write(li.lastChild, text);
}

// showFalls draws the curve of what is left. A second chart magnifies the last ones of many, which would be a pixel.
function showFalls(d, line, deadline, first, cut) {
  once(byId("drain-keys"), () => pools.map((p) => make("span", { class: `proto ${p}` }, label[p])));
  const end = d.over ? Math.max(0.5, d.account.duration_seconds * 1.12) : Math.max(deadline, d.elapsed_seconds) * 1.12;
  const told = stepOf(line, "stop-accepting").to, least = roundUp(Math.max(1.5 * cut, first > 1000 ? 100 : 20)), magnified = first > 4 * least && told < end;
  drawFall(byId("fall"), { d, line, deadline, cut, from: 0, to: end, most: Math.max(4, first * 1.08) });
  byId("fall").setAttribute("aria-label", `${count(d.left)} of ${count(first)} connections left after ${exact(d.elapsed_seconds)}; deadline at ${exact(deadline)}`);
  byId("tail-figure").hidden = !magnified;
  if (!magnified) return;
  write(byId("tail-name"), `The last ${least}, magnified`);
  drawFall(byId("tail"), { d, line, deadline, cut, from: Math.max(0, told - (end - told) * 0.1), to: end, most: least });
  byId("tail").setAttribute("aria-label", `The last connections: ${named(d.remaining) || "none"}${cut ? `; cut: ${named(d.account.forced)}` : ""}`);
}

function drawFall(svg, { d, line, deadline, cut, from, to, most }) {
  const width = svg.clientWidth || 400, height = innerWidth < 720 ? 190 : 216, [left, right, top, bottom] = [42, 8, 26, 22];
  const x = linear(from, to, left, width - right), y = linear(0, most, height - bottom, top), roof = top - 18, floor = height - bottom;
  svg.setAttribute("height", height);
  svg.replaceChildren();
  const names = drawPhases(svg, line, { x, from, to, roof, floor });
  gridlines(svg, ticks(most, 4), y, left, width - right, brief);
  const times = ticks(to, width < 480 ? 4 : 7).filter((t) => t >= from && x(t) < width - 12);
  for (const t of times) draw(svg, "text", { x: x(t), y: height - 5, "text-anchor": x(t) < left + 8 ? "start" : "middle" }, `${+t.toFixed(2)} s`);
  const samples = d.history.filter((point) => point.elapsed_seconds <= to).map((point) => ({ at: point.elapsed_seconds, values: point.remaining }));
  if (samples.length > 0) {
    samples.unshift({ at: 0, values: samples[0].values });
    draw(draw(svg, "clipPath", { id: `clip-${svg.id}` }), "rect", { x: left, y: roof, width: width - left - right, height: floor - roof });
    stack(draw(svg, "g", { "clip-path": `url(#clip-${svg.id})` }), pools, samples, x, y);
  }
  for (const [attributes, name] of names) draw(svg, "text", attributes, name);
  if (deadline <= to) {
    draw(svg, "line", { class: "deadline", x1: x(deadline), x2: x(deadline), y1: roof, y2: floor });
    if (!cut) draw(svg, "text", { class: "strong halo", x: x(deadline) - 5, y: top + 10, "text-anchor": "end" }, `deadline ${exact(deadline)}`);
  }
  if (cut) return drawCut(svg, line, cut, x, y, width - right);
  const at = d.elapsed_seconds;
  if (d.running && at > from && d.left > most) {
    draw(svg, "text", { class: "halo", x: (left + width) / 2, y: (y(0) + y(most)) / 2, "text-anchor": "middle" }, `not below ${count(most)} yet`);
  } else if (at > from && at <= to) {
    const flip = x(at) > width - 90, height = y(Math.min(most * 0.8, d.left)) - 8;
    draw(svg, "line", { class: "nowline", x1: x(at), x2: x(at), y1: roof, y2: floor });
    draw(svg, "text", { class: "nowtext halo", x: x(at) + (flip ? -6 : 6), y: height < top + 14 ? top + 24 : height, "text-anchor": flip ? "end" : "start" }, `${count(d.left)} left`);
  }
}

// drawPhases colours the ground by the steps that last, and returns their names, which are written above the curve.
function drawPhases(svg, line, { x, from, to, roof, floor }) {
  const names = [];
  line.map((step, i) => ({ ...step, band: `${i + 1} ${bandName[step.name]}` })).filter(({ name }) => bandName[name]).forEach((step, i) => {
    const [start, end] = [Math.max(from, step.from), Math.min(to, step.to)];
    if (end <= start) return;
    draw(svg, "rect", { class: `phase ${i % 2 ? "" : "odd"} ${step.state === "on" ? "on" : ""}`, x: x(start), y: roof, width: x(end) - x(start), height: floor - roof });
    if (x(end) - x(start) > 62) names.push([{ class: "phasename halo", x: x(start) + 6, y: roof + 13 }, step.band]);
  });
  return names;
}

// drawCut marks what was cut where the waiting ended. It alone is red.
function drawCut(svg, line, cut, x, y, edge) {
  const at = stepOf(line, "force-close").from, height = Math.max(y(cut), y(0) - 150);
  draw(svg, "rect", { class: "cutarea", x: x(at), y: height, width: Math.max(5, Math.min(9, edge - x(at))), height: y(0) - height });
  draw(svg, "path", { class: "cutarea", d: `M${(x(at) - 4).toFixed(1)} ${(height - 12).toFixed(1)}h8l-4 7z` });
  draw(svg, "text", { class: "cuttext halo", x: x(at) - 8, y: height - 6, "text-anchor": "end" }, `${count(cut)} cut at ${exact(at)}`);
}

const advice = {
  websocket: ["Clients have to answer close code 1001, and to connect anew."],
  grpc: ["Calls were still under way. Raise ", code("drain.timeout"), " above their length, or let them end when the drain begins."],
  http1: ["Requests were still under way. Raise ", code("drain.timeout"), " above their length."],
  http2: ["Requests were still under way. Raise ", code("drain.timeout"), " above their length."],
  sniffing: ["Clients were in the first bytes of a request."],
};
const shownCut = 12;

// showCut names those who were cut, and what would help.
function showCut(cut, account) {
  const list = byId("cutlist"), total = sum(account?.forced);
  list.hidden = total === 0;
  if (list.hidden || list.childElementCount > 0) return;
  const lines = pools.filter((p) => account.forced[p] > 0).map((p) => make("p", {}, strong(`${count(account.forced[p])} ${label[p]}.`), " ", ...advice[p].map((part) => part.cloneNode?.(true) ?? part)));
  const rows = cut.slice(0, shownCut).map((c) => make("li", {}, code(c.remote_addr || "unknown peer"),
    ` ${label[c.protocol] ?? c.protocol}, open for ${span(Math.max(0, Date.parse(c.closed) - Date.parse(c.opened)) / 1000)}`));
  if (total > rows.length) rows.push(make("li", { class: "quiet" }, `and ${count(total - rows.length)} more; the table of ended connections has the last 200`));
  list.append(make("h3", {}, `${plural(total, "connection was", "connections were")} cut`), ...lines, make("ul", {}, ...rows));
}
