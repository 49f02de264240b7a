// onnxruntime's file of adapter tensors, a FlatBuffer (adapter_schema.fbs): onnxruntime-web has no reader of its own.
// A table starts with the distance back to its list of fields; a field is absent where its place in the list is 0.

const FLOAT = 1;
const IDENTIFIER = "TORT";

/** Bytes of NAME.onnx_adapter → Map of name → {values: Float32Array, shape}. */
export function readAdapter(bytes, file) {
  try {
    return new Reader(bytes).parameters();
  } catch (error) {
    throw new Error(`${file}: is damaged (${error.message}); export it again`);
  }
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  parameters() {
    if (this.text(4, 4) !== IDENTIFIER) throw new Error("it is of another format");
    const list = this.field(this.follow(0), 3), found = new Map();
    if (!list) return found;
    const start = this.follow(list), count = this.view.getUint32(start, true);
    for (let n = 0; n < count; n++) {
      const [name, tensor] = this.parameter(this.follow(start + 4 + 4 * n));
      found.set(name, tensor);
    }
    return found;
  }

  parameter(table) {
    const [name, dims, type, data] = [0, 1, 2, 3].map((number) => this.field(table, number));
    if (!name || !type || this.view.getInt32(type, true) !== FLOAT) throw new Error("a tensor is not of float32");
    const [text, size] = this.vector(name), shape = [];
    if (dims) {
      const [start, count] = this.vector(dims);
      for (let n = 0; n < count; n++) shape.push(Number(this.view.getBigInt64(start + 8 * n, true)));
    }
    const [start, length] = data ? this.vector(data) : [0, 0];
    if (length !== 4 * shape.reduce((product, side) => product * side, 1)) throw new Error("a tensor is not as long as its shape says");
    if (start + length > this.bytes.length) throw new Error("it ends early");
    return [this.text(text, size), { values: new Float32Array(this.bytes.slice(start, start + length).buffer), shape }];
  }

  /** Offset of a field of a table; 0 where it is absent. */
  field(table, number) {
    const list = table - this.view.getInt32(table, true), at = 4 + 2 * number;
    const place = at < this.view.getUint16(list, true) ? this.view.getUint16(list + at, true) : 0;
    return place && table + place;
  }

  follow(at) {
    return at + this.view.getUint32(at, true);
  }

  /** Start and number of elements. */
  vector(at) {
    const start = this.follow(at);
    return [start + 4, this.view.getUint32(start, true)];
  }

  text(start, length) {
    return new TextDecoder().decode(this.bytes.subarray(start, start + length));
  }
}
