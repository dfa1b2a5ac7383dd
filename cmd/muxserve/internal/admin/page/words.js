// Names, words and numbers.

export const protocols = ["http1", "http2", "grpc", "websocket"];
export const sniffing = "sniffing"; // connections that have not said yet what they speak
export const pools = [...protocols, sniffing]; // in the order of the stack, from below

export const label = { http1: "HTTP/1.1", http2: "HTTP/2", grpc: "gRPC", websocket: "WebSocket", sniffing: "being recognised" };
export const short = { http1: "h1", http2: "h2", grpc: "gRPC", websocket: "WS" };

export const sum = (o) => Object.values(o ?? {}).reduce((a, b) => a + b, 0);
export const count = (n) => n.toLocaleString("en", { maximumFractionDigits: 0 });
export const figure = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 1 : 0 });
export const brief = (n) => n >= 1000 ? (n / 1000).toLocaleString("en", { maximumFractionDigits: 1 }) + "k" : figure(n);
export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

export function percent(share) {
  if (share === 0) return "0 %";
  if (share < 0.0005) return "<0.1 %";
  return (share * 100).toFixed(share < 0.1 ? 1 : 0) + " %";
}

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit += 1) bytes /= 1024;
  return `${bytes.toFixed(unit === 0 || bytes >= 100 ? 0 : 1)} ${units[unit]}`;
}

// span names a length of time by its two largest units: 6d 4h, 12 s, 4.1 ms.
export function span(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.0005) return figure(seconds * 1e6) + " µs";
  if (seconds < 0.0095) return figure(seconds * 1000) + " ms";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 60) return Math.floor(seconds) + " s";
  const units = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  const first = units.findIndex(([length]) => seconds >= length);
  const [[whole, unit], next] = [units[first], units[first + 1]];
  const head = Math.floor(seconds / whole) + unit;
  return next ? `${head} ${Math.floor((seconds % whole) / next[0])}${next[1]}` : head;
}

// tenths names a length of time in seconds, and exact a short one in milliseconds.
export const tenths = (seconds) => Math.max(0, seconds).toFixed(1) + " s";
export const exact = (seconds) => seconds < 0.9995 ? span(Math.max(0, seconds)) : tenths(seconds);

export const ago = (seconds) => seconds < 1 ? "just now" : `${span(seconds)} ago`;

// named lists counts by protocol: 3 gRPC, 14 WebSocket.
export const named = (counts) => pools.filter((p) => counts?.[p] > 0).map((p) => `${count(counts[p])} ${label[p]}`).join(", ");
