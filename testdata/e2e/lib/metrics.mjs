// Reads the Prometheus text format, strictly: a line that does not parse is an error.

const sampleLine = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const label = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)/y;

// parse returns the samples of a page, as {name, labels, value}.
export function parse(text) {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map(parseSample);
}

function parseSample(line) {
  const match = sampleLine.exec(line);
  if (!match) throw new Error(`not a sample: ${line}`);
  const value = number(match[3]);
  if (Number.isNaN(value) && match[3] !== 'NaN') throw new Error(`not a number: ${line}`);
  return { name: match[1], labels: parseLabels(match[2] ?? '', line), value };
}

function number(text) {
  return text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text);
}

function parseLabels(text, line) {
  const labels = {};
  label.lastIndex = 0;
  for (let end = 0; end < text.length; end = label.lastIndex) {
    const match = label.exec(text);
    if (!match) throw new Error(`bad labels: ${line}`);
    labels[match[1]] = match[2];
  }
  return labels;
}

// sum adds up the samples of that name whose labels include the wanted ones.
export function sum(samples, name, wanted = {}) {
  return samples
    .filter((s) => s.name === name && Object.entries(wanted).every(([key, value]) => s.labels[key] === value))
    .reduce((total, s) => total + s.value, 0);
}
