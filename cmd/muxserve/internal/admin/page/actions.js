// Calls that change something. Each says what it will do and what goes over the wire. The token is asked for once, and
// only where the server wants it.

import { byId, make, write } from "./dom.js";
import { hasToken, send, setToken } from "./feed.js";

let pending; // the action that the dialog asks about
let done; // resolves what ask has promised
let clearing;

export function toast(text) {
  write(byId("toast"), text);
  clearTimeout(clearing);
  clearing = setTimeout(() => write(byId("toast"), ""), 8000);
}

function blame(lines) {
  byId("ask-fault").replaceChildren(...lines.map((line) => make("p", {}, line)));
}

// faults returns what an answer says against a call.
async function faults(response) {
  const text = await response.text();
  try {
    const { error, faults: list = [] } = JSON.parse(text);
    return [error, ...list];
  } catch {
    return [text.trim() || `the server answered ${response.status}`];
  }
}

function wantToken(wanted) {
  byId("ask-token").hidden = !wanted;
  byId("token").required = wanted;
  if (wanted) byId("token").focus();
}

// attempt makes the call, and reports whether the dialog may close.
async function attempt() {
  const action = pending;
  if (!byId("ask-token").hidden) setToken(byId("token").value.trim());
  const response = await send(...action.call);
  if (response.status === 401) {
    const wrong = hasToken();
    setToken("");
    byId("token").value = "";
    wantToken(true);
    blame(wrong ? ["This is not the token."] : []);
    return false;
  }
  wantToken(false);
  if (!response.ok) {
    blame(await faults(response));
    return false;
  }
  toast(action.done(await response.json().catch(() => ({}))));
  return true;
}

async function submit() {
  const go = byId("ask-go");
  go.disabled = true;
  try {
    if (await attempt()) byId("ask").close("done");
  } catch {
    blame(["The server does not answer."]);
  } finally {
    go.disabled = false;
  }
}

// ask shows the dialog for an action: its title, what it does, the call as [method, path], the word on the button, and
// what is said when it is done. It resolves when the dialog is closed.
export function ask(action) {
  pending = action;
  write(byId("ask-title"), action.title);
  write(byId("ask-text"), action.text);
  write(byId("ask-wire"), action.call.join(" "));
  write(byId("ask-go"), action.go);
  blame([]);
  wantToken(false);
  byId("ask").showModal();
  return new Promise((resolve) => { done = resolve; });
}

// askForToken asks for the token that reading needs, and resolves to whether the server has taken it.
export async function askForToken() {
  if (byId("ask").open) return false;
  const answer = ask({
    title: "The admin token, please", text: "This server shows its figures to those who have the token.", call: ["GET", "/servers"], go: "Show them",
    done: () => "",
  });
  wantToken(true);
  await answer;
  return hasToken();
}

export function listenToDialog() {
  byId("ask-form").addEventListener("submit", (e) => {
    e.preventDefault();
    submit();
  });
  byId("ask-cancel").addEventListener("click", () => byId("ask").close());
  byId("ask").addEventListener("close", () => {
    byId("token").value = "";
    done?.();
  });
}
