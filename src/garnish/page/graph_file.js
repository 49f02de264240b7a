// An ONNX file whose inputs have defaults: onnxruntime-web takes no other values for such inputs, so the defaults are
// cut out of the file and given to each run instead. The file is in Protocol Buffers: fields of a number and a kind.

const [VARINT, EIGHT, BYTES, FOUR] = [0, 1, 2, 5];
const FLOAT = 1;
const GRAPH = 7; // of ModelProto
const INITIALIZER = 5; // of GraphProto

/** Bytes of a graph, names of inputs → {graph: bytes, defaults: Map of name → {values: Float32Array, shape}}. */
export function withoutDefaults(bytes, names) {
  const defaults = new Map(), model = [];
  for (const field of fields(bytes)) {
    if (field.number !== GRAPH) {
      model.push(field.whole);
      continue;
    }
    const kept = [];
    for (const inner of fields(field.content)) {
      const tensor = inner.number === INITIALIZER ? initializer(inner.content) : null;
      if (tensor !== null && names.has(tensor.name)) defaults.set(tensor.name, floats(tensor));
      else kept.push(inner.whole);
    }
    const size = kept.reduce((sum, part) => sum + part.length, 0);
    model.push(Uint8Array.from([(GRAPH << 3) | BYTES, ...varint(size)]), ...kept);
  }
  return { graph: joined(model), defaults };
}

/** The fields of a message: number, the whole with its key, and the content or number. */
function* fields(bytes) {
  let at = 0;
  const read = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      if (byte === undefined) throw new Error("model.onnx: is damaged (it ends early); export it again");
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const start = at, key = read(), kind = key % 8, number = Math.floor(key / 8);
    let content = null;
    if (kind === VARINT) content = read();
    else {
      const size = kind === BYTES ? read() : { [EIGHT]: 8, [FOUR]: 4 }[kind];
      content = bytes.subarray(at, at + size);
      if (!(content.length === size)) throw new Error("model.onnx: is damaged; export it again");
      at += size;
    }
    yield { number, content, whole: bytes.subarray(start, at) };
  }
}

/** Name, shape, type and bytes of a TensorProto. */
function initializer(bytes) {
  const found = { name: "", shape: [], type: 0, data: new Uint8Array(0), other: false };
  for (const { number, content } of fields(bytes)) {
    if (number === 1) found.shape.push(...(typeof content === "number" ? [content] : packed(content)));
    else if (number === 2) found.type = content;
    else if (number === 8) found.name = new TextDecoder().decode(content);
    else if (number === 9) found.data = content;
    else if (number === 4 || number === 13 || number === 14) found.other = true; // numbers one by one, or in other files
  }
  return found;
}

function packed(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    let value = 0, scale = 1;
    do { value += (bytes[at] & 127) * scale; scale *= 128; } while (bytes[at++] & 128);
    found.push(value);
  }
  return found;
}

function floats({ name, shape, type, data, other }) {
  if (other || type !== FLOAT || data.length !== 4 * shape.reduce((product, side) => product * side, 1)) {
    throw new Error(`model.onnx: the default of input ${name} is not stored as float32; export it again`);
  }
  return { values: new Float32Array(data.slice().buffer), shape };
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}
