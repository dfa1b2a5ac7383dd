// gRPC-Web in binary form for the messages of muxserve.demo.v1.Echo, without generated code.
// Frames: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md

const textBytes = new TextEncoder();
const bytesText = new TextDecoder();

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) {
    bytes.push((value % 128) + 128);
  }
  return [...bytes, value];
}

// Fields of protobuf: a number with its wire type, then the value. Zero values are left out.
const numberField = (field, value) => (value ? [field * 8, ...varint(value)] : []);
const bytesField = (field, bytes) => (bytes.length ? [field * 8 + 2, ...varint(bytes.length), ...bytes] : []);
const secondsField = (field, seconds) =>
  bytesField(field, [...numberField(1, Math.floor(seconds)), ...numberField(2, Math.round((seconds % 1) * 1e9))]);

function encodeRequest({ message = "", delay = 0, repeat = 0, interval = 0, endOnDrain = false }) {
  return [
    ...bytesField(1, textBytes.encode(message)),
    ...secondsField(2, delay),
    ...numberField(3, repeat),
    ...secondsField(4, interval),
    ...numberField(5, endOnDrain ? 1 : 0),
  ];
}

const responseFields = { 1: "message", 2: "sequence", 3: "protocol", 4: "transport", 5: "conn_id" };

// EchoResponse has text and whole numbers alone, wire types 2 and 0.
function decodeResponse(bytes) {
  const response = { message: "", sequence: 0, protocol: "", transport: "", conn_id: 0 };
  let at = 0;
  const number = () => {
    let value = 0;
    for (let unit = 1; ; unit *= 128) {
      const byte = bytes[at++];
      value += (byte % 128) * unit;
      if (!(byte > 127)) {
        return value;
      }
    }
  };
  while (at < bytes.length) {
    const tag = number();
    let value = number();
    if (tag % 8 === 2) {
      at += value;
      value = bytesText.decode(bytes.subarray(at - value, at));
    } else if (tag % 8 !== 0) {
      throw new Error("a field of an unknown form");
    }
    response[responseFields[Math.floor(tag / 8)] ?? "unknown"] = value;
  }
  return response;
}

const codeNames = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
  "DATA_LOSS", "UNAUTHENTICATED",
];
const unavailable = 14;

class StatusError extends Error {
  constructor(code, text) {
    super((codeNames[code] ?? "code " + code) + (text ? ": " + text : ""));
    this.code = code;
  }
}

// checkStatus throws the status of a call unless it is OK; get returns a field of the trailers.
function checkStatus(get) {
  const code = get("grpc-status");
  if (code === undefined || code === null) {
    throw new Error("the response ended without a status");
  }
  if (Number(code) !== 0) {
    throw new StatusError(Number(code), decodeURIComponent(get("grpc-message") ?? ""));
  }
}

function parseTrailers(bytes) {
  return new Map(bytesText.decode(bytes).split("\r\n").filter(Boolean).map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  }));
}

// frames yields the frames of a body: [flags, payload]. One that is cut off is an error.
async function* frames(body) {
  const reader = body.getReader();
  let rest = new Uint8Array(0);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        break;
      }
      const joined = new Uint8Array(rest.length + value.length);
      joined.set(rest);
      joined.set(value, rest.length);
      rest = joined;
      while (rest.length >= 5) {
        const end = 5 + new DataView(rest.buffer, rest.byteOffset).getUint32(1);
        if (rest.length < end) {
          break;
        }
        yield [rest[0], rest.subarray(5, end)];
        rest = rest.subarray(end);
      }
    }
    if (rest.length > 0) {
      throw new Error("the response ended within a message");
    }
  } finally {
    reader.cancel().catch(() => {}); // Harmless where it has ended.
  }
}

// grpcWeb yields the responses to a call. It throws a StatusError for a status other than OK.
async function* grpcWeb(url, request, signal) {
  const message = encodeRequest(request);
  const frame = new Uint8Array(5 + message.length);
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, 5);
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1" },
    body: frame,
    cache: "no-store",
    signal,
  });
  if (!response.ok) {
    throw new Error(`HTTP ${response.status} ${response.statusText}`);
  }
  if (response.headers.has("grpc-status")) { // A response of trailers alone.
    checkStatus((name) => response.headers.get(name));
  }
  for await (const [flags, payload] of frames(response.body)) {
    if (flags & 0x80) {
      const trailers = parseTrailers(payload);
      checkStatus((name) => trailers.get(name));
      return;
    }
    yield decodeResponse(payload);
  }
  throw new Error("the response ended without a status");
}

