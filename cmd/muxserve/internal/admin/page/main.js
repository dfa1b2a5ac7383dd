// The page: what it knows of the server, and when it asks, draws and speaks.

import { ask, askForToken, listenToDialog, toast } from "./actions.js";
import { showCards } from "./cards.js";
import { announce, byId, dress, write } from "./dom.js";
import { showDrain } from "./drain.js";
import { follow, pidOf, send, successor } from "./feed.js";
import { listenToReader, showData, showFunnel, showHeader, showHero, showJump, showListeners, showSay } from "./overview.js";
import { completed, matcher } from "./peers.js";
import { certificateTable, choose, closedTable, configurationTable, liveTable, markSorted, outcomeChoices, protocolChoices, radios, setNow, showCount } from "./tables.js";
import { count, plural, sum } from "./words.js";

const state = {
  health: null, drain: null, metrics: null, // the last answers
  recent: [], // what health events have said since the last sample of the metrics
  certificates: null, config: null, connections: [], total: 0, closed: [],
  now: 0, // the server's time of the last answer, in milliseconds
  offset: 0, // of the server's clock from this one
  pid: 0, // of the process that is watched
  over: false, // its drain has ended
  lost: 0, // when it last answered, where it answers no more
  cut: 0, // connections that its drain has cut
};
const mostRecent = 300; // No sample of the metrics is asked for while the page is hidden or paused.
const filter = { protocol: "", peer: "", outcome: "", sort: "bytes" };
const narrow = innerWidth < 720;
const shown = { live: narrow ? 5 : 10, closed: narrow ? 5 : 10 };
const still = matchMedia("(prefers-reduced-motion: reduce)");
let paused = false;

const live = liveTable((c) => ask({
  title: `Close connection ${c.id}?`, text: `It is told first; what it has under way is cut after a second. The peer is ${c.remote_addr || "unknown"}.`,
  call: ["DELETE", `/connections/${c.id}`], go: "Close it", done: () => `Connection ${c.id} was told to leave.`,
}).then(askLists));
const closed = closedTable();
const certificates = certificateTable();
const configuration = configurationTable((version) => ask({
  title: `Roll back to version ${version}?`, text: "What has changed since then is undone at once, for connections that are open too. The result is a version of its own.",
  call: ["POST", `/config/rollback?version=${version}`], go: "Roll back", done: (v) => `Version ${version} is in force again, as version ${v.version}.`,
}).then(askRarely));

// get asks the process that is watched; another one may answer at its address. It returns null where there is no answer.
async function get(path) {
  if (state.over || state.lost) return null;
  try {
    const response = await send("GET", path, AbortSignal.timeout(10_000));
    if (state.pid && pidOf(response) !== state.pid) return null;
    return { ok: response.ok, body: await response.json() };
  } catch {
    return null;
  }
}

// What changes seldom, and the history, which has a new sample every five seconds.
async function askRarely() {
  const [metrics, servers, certs, config] = await Promise.all(["/metrics?format=json", "/servers", "/certificates", "/config?format=json"].map(get));
  if (metrics?.ok) {
    state.metrics = metrics.body;
    const last = Date.parse(metrics.body.history.at(-1)?.time ?? 0);
    state.recent = state.recent.filter((s) => s.time > last);
    state.offset = Date.parse(metrics.body.time) - Date.now();
  }
  if (servers?.ok) showListeners(servers.body);
  if (certs?.ok) state.certificates = certs.body;
  if (config?.ok) state.config = config.body;
  draw(true);
}

// The lists of connections.
let asked = 0;
async function askLists() {
  const mine = asked += 1;
  const query = new URLSearchParams({ sort: filter.sort, limit: shown.live });
  if (filter.protocol) query.set("protocol", filter.protocol);
  if (filter.peer) query.set("peer", completed(filter.peer));
  const [list, ended] = await Promise.all([get(`/connections?${query}`), get("/closed?limit=400")]);
  if (mine !== asked) return; // The filter has changed since then.
  if (list) {
    write(byId("peer-fault"), list.ok ? "" : list.body.error ?? "");
    [state.connections, state.total] = list.ok ? [list.body.connections, list.body.total] : [[], 0];
  }
  if (ended?.ok) state.closed = ended.body.closed;
  if (!paused) showLists();
}

function showLists() {
  setNow(state.now);
  const filtered = filter.protocol !== "" || filter.peer !== "", matches = matcher(filter.peer);
  live(state.connections, (c) => c.id);
  showCount(byId("live-count"), state.connections.length, state.total, filtered);
  byId("more-live").hidden = state.connections.length >= state.total;
  const rows = state.closed.filter((c) => (!filter.protocol || c.protocol === filter.protocol) && (!filter.outcome || c.outcome === filter.outcome) && matches(c.remote_addr));
  closed(rows.slice(0, shown.closed), (c) => c.id);
  showCount(byId("closed-count"), Math.min(shown.closed, rows.length), rows.length, filtered || filter.outcome !== "");
  byId("more-closed").hidden = rows.length <= shown.closed;
}

// draw draws everything that moves. With reduced motion it does so every five seconds, unless something has happened.
let drawn = 0;
function draw(news = false) {
  if (paused || !state.health) return;
  if (!news && still.matches && Date.now() - drawn < 4900) return;
  drawn = Date.now();
  showHeader(state);
  showJump(state);
  showLost();
  if (state.drain) showDrain(state);
  if (!state.metrics) return;
  showSay(state);
  showHero(state);
  showData(state);
  showFunnel(state, () => { choose("outcome", "refused"); byId("closed").scrollIntoView(); });
  showCards(state);
  setNow(state.now);
  certificates([...state.certificates?.certificates ?? []].sort((a, b) => a.remaining_seconds - b.remaining_seconds), (c) => c.listener + c.serial);
  byId("no-certificates").hidden = !state.certificates || state.certificates.certificates.length > 0;
  configuration((state.config?.history ?? []).toReversed().map((v) => ({ ...v, current: v.version === state.config.version })), (v) => v.version);
}

const clock = (millis) => new Date(millis).toISOString().slice(11, 19) + " UTC";

// notice shows a text above everything, and perhaps a button. An empty text hides it.
function notice(text, kind = "", button = "", press) {
  byId("notice").hidden = text === "";
  dress(byId("notice"), `panel notice ${kind}`);
  write(byId("notice-text"), text);
  byId("notice-button").hidden = button === "";
  write(byId("notice-button"), button);
  byId("notice-button").onclick = press;
}

function showLost() {
  if (state.over) return;
  notice(state.lost ? `The server does not answer. The figures are those of ${clock(state.lost)}; asking again every second.` : "");
}

// denied asks for the token that reading needs, until the server takes it.
async function denied() {
  while (!await askForToken()) {
    await new Promise((resolve) => { notice("The figures need the admin token.", "calm", "Enter the token", resolve); });
  }
  notice("");
}

let spoken = "";
function speak() {
  const text = `${state.over ? "stopped" : state.health.phase}, ${state.health.status}`;
  const news = text !== spoken;
  if (news && spoken && !state.health.phase.startsWith("drain")) announce(`The server is ${text}`);
  spoken = text;
  return news;
}

// answered notes that the process with this pid answers. Where the one before it has gone, everything begins anew.
function answered(pid) {
  if (state.pid && pid !== state.pid) {
    [state.drain, state.metrics, state.recent] = [null, null, []];
    [state.connections, state.total, state.closed] = [[], 0, []];
    showLists(); // Its connections have the same numbers, and would be shown in the rows of the old ones.
    announce(`Another process answers: ${pid}`);
  }
  const back = state.lost > 0 || pid !== state.pid;
  state.pid = pid;
  state.lost = 0;
  if (back) askRarely().then(askLists);
}

const receive = {
  health(health) {
    state.health = health;
    state.now = Date.now() + state.offset;
    state.recent.push({ time: state.now, protocols: health.protocols });
    if (state.recent.length > mostRecent) state.recent.shift();
    draw(speak());
  },
  drain(progress) {
    const news = state.drain?.running !== progress.running || state.drain.step !== progress.step;
    state.drain = progress;
    if (!paused && (!still.matches || news)) showDrain(state);
    if (news && progress.running) askLists();
  },
  end(progress) {
    state.drain = progress;
    state.over = true;
    state.cut = sum(progress.account.forced);
    const known = new Set(progress.cut.map((c) => c.id));
    state.closed = [...progress.cut, ...state.closed.filter((c) => !known.has(c.id))];
    [state.connections, state.total] = [[], 0];
    speak();
    draw(true);
    showLists();
  },
};

async function watch() {
  await follow({
    opened: answered,
    polled: answered,
    event: (name, data) => receive[name]?.(data),
    denied,
    lost() {
      if (!state.health) return write(byId("say"), "The server does not answer. Asking again every second.");
      const news = state.lost === 0;
      state.lost ||= state.now;
      draw(news);
      if (news) announce("The connection to the server is lost");
    },
  });
  const other = await successor(state.pid);
  notice(`Process ${other} answers at this address now. What is shown is the last account of process ${state.pid}.`, "calm", "Watch the new process", () => location.reload());
}

function listen() {
  const every = (millis, ask) => setInterval(() => { if (!paused && !document.hidden) ask(); }, millis);
  every(5000, askRarely);
  every(2000, askLists);
  const found = async (counter) => {
    await askLists();
    announce(`Showing ${byId(counter).textContent}`);
  };
  radios(byId("filter-protocol"), "protocol", protocolChoices(), (v) => { filter.protocol = v; found("live-count"); });
  radios(byId("filter-outcome"), "outcome", outcomeChoices, (v) => { filter.outcome = v; found("closed-count"); });
  byId("peer").addEventListener("input", (e) => { filter.peer = e.target.value.trim(); found("live-count"); });
  byId("more-live").addEventListener("click", () => { shown.live += 10; askLists(); });
  byId("more-closed").addEventListener("click", () => { shown.closed += 10; showLists(); });
  const sortBy = (order) => { filter.sort = byId("sorter").value = order; markSorted(order); askLists(); };
  markSorted(filter.sort);
  byId("sorter").addEventListener("change", (e) => sortBy(e.target.value));
  byId("live").querySelector("thead").addEventListener("click", (e) => {
    const button = e.target.closest("button");
    if (button) sortBy(button.dataset.sort);
  });
  // The page moves by itself, so it can be made to stand still (WCAG 2.2, criterion 2.2.2).
  byId("pause").addEventListener("click", ({ currentTarget }) => {
    paused = !paused;
    currentTarget.setAttribute("aria-pressed", String(paused));
    draw(true);
    if (!paused) askLists();
  });
  for (const details of document.querySelectorAll("details.data")) details.addEventListener("toggle", () => draw(true));
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (entry.contentRect.width !== width) requestAnimationFrame(() => draw(true));
    width = entry.contentRect.width;
  }).observe(byId("main"));
}

function listenToActions() {
  byId("do-drain").addEventListener("click", () => ask({
    title: "Drain this server?", text: `${plural(state.health.connections, "connection")} will be told to leave, and the process ends. This cannot be undone.`,
    call: ["POST", "/drain"], go: "Drain", done: () => "Draining: readiness is off.",
  }));
  byId("do-rotate").addEventListener("click", () => {
    const { ready } = state.health;
    ask({
      title: ready ? "Take out of rotation?" : "Put back in rotation?",
      text: ready ? "/readyz says 503, so that balancers choose other servers. Everything is still served, and the process stays." : "/readyz says 200 again.",
      call: ["POST", `/ready?state=${ready ? "off" : "on"}`], go: ready ? "Take out" : "Put back",
      done: (answer) => answer.ready ? "In rotation: /readyz says 200." : "Out of rotation: /readyz says 503; everything is still served.",
    });
  });
  byId("do-reload").addEventListener("click", () => ask({
    title: "Reload the configuration?", text: "The file and the certificates are read again, and put in force whole or not at all.",
    call: ["POST", "/config/reload"], go: "Reload",
    done: (v) => v.outcome === "unchanged" ? `Nothing has changed: version ${v.version} stays in force.` : `Version ${v.version} is in force: ${count(v.changes?.length ?? 0)} changed.`,
  }).then(askRarely));
  byId("level").addEventListener("change", async ({ target }) => {
    await ask({
      title: `Log at level ${target.value}?`, text: "It holds until the next reload or start.", call: ["POST", `/log?level=${target.value}`], go: "Change",
      done: ({ level }) => `The log level is ${level}.`,
    });
    target.blur();
  });
}

listenToDialog();
listenToReader();
listen();
listenToActions();
watch().catch((fault) => toast(`The page failed: ${fault.message}`));
