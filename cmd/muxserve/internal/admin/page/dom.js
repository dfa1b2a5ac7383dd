// Elements. Texts are set as text alone, so that nothing that a peer sends becomes markup; the page's policy forbids
// everything else. Styles are set as properties: the policy allows no style attribute.

import { label } from "./words.js";

export const byId = (id) => document.getElementById(id);

function appendAll(parent, children) {
  parent.append(...children.filter((child) => child !== undefined && child !== ""));
  return parent;
}

// make returns an element. The attribute click is a listener. Attributes that are undefined or false are left out.
export function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "click") e.addEventListener("click", value);
    else if (value !== undefined && value !== false) e.setAttribute(name, value === true ? "" : value);
  }
  return appendAll(e, children);
}

// draw appends an element of an SVG.
export function draw(parent, tag, attributes, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    e.setAttribute(name, typeof value === "number" ? Number(value.toFixed(2)) : value);
  }
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}

export const makeSVG = (attributes) => draw(document.createDocumentFragment(), "svg", attributes);

// What has not changed is not written, so that selections and screen readers are left alone.
export function write(e, text) {
  if (e.textContent !== String(text)) e.textContent = text;
}

export function dress(e, className) {
  if (e.className !== className) e.className = className;
}

// fill sets the share in percent that a meter, a rail or a bar shows.
export function fill(e, percentage) {
  e.style.setProperty("--v", percentage);
  return e;
}

export const strong = (text) => make("strong", {}, text);
export const code = (text) => make("code", {}, text);
export const sub = (...children) => make("small", {}, ...children);
export const pill = (text, kind = "") => make("span", { class: `pill plain ${kind}` }, text);

// proto names a protocol with its colour.
export const proto = (p) => label[p] && p !== "sniffing" ? make("span", { class: `proto ${p}` }, label[p]) : make("span", { class: "quiet" }, "not known");

// say writes a sentence of texts and elements.
export function say(e, kind, ...parts) {
  const text = parts.map((part) => part.textContent ?? part).join("");
  dress(e, `say ${kind}`);
  if (e.textContent !== text) e.replaceChildren(...parts);
}

// once fills an empty element.
export function once(host, children) {
  if (host.childElementCount === 0) host.append(...children());
  return host;
}

// announce tells those who do not see the page of a change.
export const announce = (text) => write(byId("announce"), text);
