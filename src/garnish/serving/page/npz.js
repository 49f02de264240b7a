// A file of numpy.savez → its arrays: a zip of .npy files, stored or deflated. Nothing is made before its size is known.

const [LOCAL, ENTRY, END] = [0x04034b50, 0x02014b50, 0x06054b50];
const KINDS = { "|u1": Uint8Array, "<u2": Uint16Array, "<i4": Int32Array, "<f4": Float32Array, "<f8": Float64Array };

/** Bytes (ArrayBuffer) → Map of name → {values: typed array, shape}; an Error of one line where it is damaged. */
export async function readNpz(buffer) {
  const view = new DataView(buffer), arrays = new Map();
  try {
    for (const { name, start, packed, size, method } of entries(view)) {
      const bytes = new Uint8Array(buffer, start, packed);
      arrays.set(name.replace(/\.npy$/, ""), readNpy(method === 0 ? bytes : await inflated(bytes, size), name));
    }
  } catch (error) {
    throw new Error(`the server's answer is damaged (${error.message}); ask again`);
  }
  return arrays;
}

function entries(view) {
  let end = view.byteLength - 22;
  while (end >= Math.max(0, view.byteLength - 22 - 0xffff) && view.getUint32(end, true) !== END) end--;
  if (end < 0 || view.getUint32(end, true) !== END) throw new Error("it is no zip file");
  const count = view.getUint16(end + 10, true), found = [];
  let at = view.getUint32(end + 16, true);
  for (let n = 0; n < count; n++) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("its list of files is cut off");
    const [method, packed, size] = [view.getUint16(at + 10, true), view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const [long, extra, comment] = [28, 30, 32].map((place) => view.getUint16(at + place, true)), local = view.getUint32(at + 42, true);
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, long));
    if (view.getUint32(local, true) !== LOCAL || ![0, 8].includes(method)) throw new Error(`${name} is packed in an unknown way`);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    found.push({ name, start, packed, size, method });
    at += 46 + long + extra + comment;
  }
  return found;
}

async function inflated(bytes, size) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const whole = new Uint8Array(size);
  for (let at = 0; ;) {
    const { done, value } = await reader.read();
    if (done && at === size) return whole;
    if (done || at + value.length > size) throw new Error("a file has not the size that its list says");
    whole.set(value, at);
    at += value.length;
  }
}

function readNpy(bytes, name) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), version = bytes[6];
  const [start, length] = version === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const head = new TextDecoder("latin1").decode(bytes.subarray(start, start + length));
  const told = /'descr': *'([^']+)', *'fortran_order': *(True|False), *'shape': *\(([\d, ]*)\)/.exec(head);
  const Kind = KINDS[told?.[1]];
  if (bytes[0] !== 0x93 || !Kind) throw new Error(`${name} is no array of plain numbers`);
  const shape = told[3].split(",").filter((side) => side.trim()).map(Number);
  if (told[2] === "True" && shape.length > 1) throw new Error(`${name} has its columns first`);
  const count = shape.reduce((product, side) => product * side, 1), from = start + length;
  if (bytes.length - from !== count * Kind.BYTES_PER_ELEMENT) throw new Error(`${name} is not as long as its shape says`);
  return { values: new Kind(bytes.slice(from).buffer), shape };
}
