// What the charts have in common. Samples are { at, values }: seconds, and numbers by name.

import { draw } from "./dom.js";

// minutes is the time that the charts of the history show, in seconds.
export const minutes = 300;

// linear returns a scale from one range to another.
export const linear = (from, to, start, end) => (v) => start + (end - start) * (v - from) / (to - from);

export function ticks(most, about) {
  const raw = most / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= raw * 0.999) * power;
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}

// roundUp returns the next larger number that is easy to read and to halve.
export function roundUp(v) {
  const power = 10 ** Math.floor(Math.log10(v));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].find((m) => m * power >= v * 0.999) * power;
}

export const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// stack draws areas one on the other, and returns for each its lower and upper edge at every sample.
export function stack(svg, names, samples, x, y) {
  const tops = samples.map(() => 0);
  return names.map((name) => {
    const low = [...tops];
    samples.forEach((s, i) => { tops[i] += s.values[name] ?? 0; });
    const edge = samples.map((s, i) => [x(s.at), y(tops[i])]);
    const floor = samples.map((s, i) => [x(s.at), y(low[i])]).reverse();
    const g = draw(svg, "g", { class: name });
    if (tops.some((top, i) => top > low[i])) {
      draw(g, "path", { class: "area", d: `${path(edge)}L${path(floor).slice(1)}Z` });
      draw(g, "path", { class: "edge", d: path(edge) });
    }
    return { name, low, high: [...tops] };
  });
}

// fromEdge begins the samples at the left edge of the chart, between the two on either side of it.
export function fromEdge(samples) {
  const i = samples.findIndex((s) => s.at > -minutes);
  if (i < 0) return [];
  const [a, b] = [samples[i - 1], samples[i]];
  if (!a) return samples;
  const share = (-minutes - a.at) / (b.at - a.at);
  const values = Object.fromEntries(Object.keys(b.values).map((k) => [k, (a.values[k] ?? 0) + share * (b.values[k] - (a.values[k] ?? 0))]));
  return [{ at: -minutes, values }, ...samples.slice(i)];
}

// gridlines draws lines with their values: on the left of the chart, or on its right.
export function gridlines(svg, values, y, left, right, text, onRight = false) {
  for (const v of values) {
    draw(svg, "line", { class: v ? "gridline" : "base", x1: left, x2: right, y1: y(v), y2: y(v) });
    draw(svg, "text", { x: onRight ? right + 6 : left - 8, y: y(v) + 4, "text-anchor": onRight ? "start" : "end" }, text(v));
  }
}
