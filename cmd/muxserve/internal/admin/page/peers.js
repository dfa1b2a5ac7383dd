// What an operator types as a peer, as an address or network that the server understands.

// completed returns a whole address, an address with a port, or a network. The beginning of an IPv4 address stands for
// its network: 10.2. for 10.2.0.0/16.
export function completed(text) {
  const parts = text.replace(/\.$/, "").split(".");
  if (parts.length > 3 || !parts.every((part) => /^\d{1,3}$/.test(part))) return text;
  return `${[...parts, 0, 0, 0].slice(0, 4).join(".")}/${8 * parts.length}`;
}

// bits returns an address as a number and its length in bits, or null for what is no address.
function bits(address) {
  if (/^(\d{1,3}\.){3}\d{1,3}$/.test(address)) return [address.split(".").reduce((n, part) => n * 256n + BigInt(part), 0n), 32];
  const [head, tail] = address.replace(/%.*/, "").split("::").map((half) => half ? half.split(":") : []);
  if (!address.includes(":")) return null;
  const groups = tail ? [...head, ...Array(Math.max(0, 8 - head.length - tail.length)).fill("0"), ...tail] : head;
  if (groups.length !== 8 || !groups.every((g) => /^[\da-f]{1,4}$/i.test(g))) return null;
  return [groups.reduce((n, g) => n * 65536n + BigInt(`0x${g}`), 0n), 128];
}

// split parts an address from its port.
function split(peer) {
  const [, ip6, ip4, port] = peer.match(/^(?:\[(.*)\]|([^:]*)):(\d+)$/) ?? [];
  return port === undefined ? [peer, ""] : [ip6 ?? ip4, port];
}

// matcher returns the condition for the peers that a filter selects. It selects none where the filter is no address.
export function matcher(text) {
  if (text === "") return () => true;
  const [wanted, port] = split(completed(text)), [network, length] = wanted.split("/"), from = bits(network);
  if (!from) return () => false;
  const shift = BigInt(from[1] - Number(length ?? from[1]));
  return (peer) => {
    const [address, its] = split(peer), to = bits(address);
    return to !== null && to[1] === from[1] && to[0] >> shift === from[0] >> shift && (port === "" || port === its);
  };
}
