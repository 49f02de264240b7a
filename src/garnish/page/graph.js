// An exported folder: its manifest, and its graph in onnxruntime-web. Errors are one line, as garnish.runtime's.
// Letters: P pixels.

import { readAdapter } from "./adapter_file.js";
import { withoutDefaults } from "./graph_file.js";

const FORMAT = 1;
const ADAPTER = ".onnx_adapter";
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

export class Graph {
  /**
   * Open a folder.
   * ort: the library; read: file name → promise of its bytes (Uint8Array), or an error where there is none.
   */
  static async open(ort, read) {
    const facts = await manifest(read, "export.json");
    if (facts.to !== "onnx") throw new Error("export.json: its graph is of torch; export it to onnx");
    let graph = await read("model.onnx");
    await check(graph, facts.sha256, "model.onnx");
    let defaults = new Map();
    if (facts.form === "inputs") ({ graph, defaults } = withoutDefaults(graph, new Set(Object.keys(facts.inputs))));
    let session;
    try {
      session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], logSeverityLevel: 3 });
    } catch (error) {
      throw new Error(`model.onnx: cannot be opened by onnxruntime-web (${told(error)})`);
    }
    const names = facts.form === "inputs" ? bundleNames(await text(read, "SHA256SUMS")) : [];
    return new Graph(ort, read, facts, session, defaults, names);
  }

  /** facts: the manifest. bundles: their names; none where one is inside the graph. */
  constructor(ort, read, facts, session, defaults, bundles) {
    Object.assign(this, { facts, bundles });
    this.#own = { ort, read, session, defaults, loaded: new Map() };
  }

  #own;

  /** Task → {output, channels, decoding: {name, options}}, of a bundle where the graph takes several. */
  async tasks(bundle = null) {
    return (await this.#bundle(bundle)).tasks;
  }

  /** Planes of a picture (3 · P bytes) → Map of task → raw output, Float32Array of channels · P. */
  async run(planes, width, height, bundle = null) {
    const { ort, session } = this.#own, { tasks, tensors } = await this.#bundle(bundle), { dtype, least } = this.facts.image;
    if (Math.min(width, height) < least) {
      throw new Error(`a picture of ${width}x${height} is smaller than the ${least} pixels that this graph takes; enlarge it`);
    }
    const size = [1, 3, height, width];
    const image = dtype === "uint8" ? new ort.Tensor("uint8", planes, size) : new ort.Tensor("float32", Float32Array.from(planes, (x) => x / 255), size);
    const given = { image };
    for (const [name, { values, shape }] of tensors) given[name] = new ort.Tensor("float32", values, shape);
    let found;
    try {
      found = await session.run(given, Object.values(tasks).map(({ output }) => output));
    } catch (error) {
      throw new Error(`onnxruntime-web cannot run the graph (${told(error)}); a smaller picture takes less memory`);
    }
    const raw = new Map();
    for (const [task, { output, channels }] of Object.entries(tasks)) {
      const { dims, type, data } = found[output], expected = [1, channels, height, width];
      if (type !== "float32" || String(dims) !== String(expected)) {
        throw new Error(`model.onnx: output ${output} is ${dims} ${type}, expected ${expected} float32; export it again`);
      }
      raw.set(task, data);
    }
    return raw;
  }

  async #bundle(name) {
    if (this.facts.form !== "inputs") return { tasks: this.facts.tasks, tensors: [] };
    const chosen = name ?? (this.bundles.length === 1 ? this.bundles[0] : null);
    if (chosen === null || !NAME.test(chosen)) throw new Error(`which bundle? there are ${this.bundles.join(", ") || "none"}`);
    const { loaded } = this.#own;
    if (!loaded.has(chosen)) loaded.set(chosen, await this.#load(chosen));
    return loaded.get(chosen);
  }

  async #load(name) {
    const { read, defaults } = this.#own, facts = await manifest(read, `${name}.json`), file = `${name}${ADAPTER}`;
    if (facts.graph !== this.facts.sha256) throw new Error(`${name}.json: was exported for another graph; export it again`);
    const data = await read(file);
    await check(data, facts.sha256, file);
    const held = readAdapter(data, file);
    for (const [key, { shape }] of Object.entries(facts.tensors)) {
      if (String(held.get(key)?.shape) !== String(shape)) throw new Error(`${file}: tensor ${key} is not as ${name}.json describes it; export it again`);
    }
    const tensors = new Map([...defaults, ...held]);
    const missing = Object.keys(this.facts.inputs).find((key) => !tensors.has(key));
    if (missing !== undefined) throw new Error(`${file}: lacks tensor ${missing}; export it again`);
    return { tasks: facts.tasks, tensors };
  }
}

/** Names of the bundles that a folder's list of sums has. */
function bundleNames(sums) {
  const files = sums.split("\n").map((line) => line.slice(66));
  const names = files.filter((file) => file.endsWith(ADAPTER)).map((file) => file.slice(0, -ADAPTER.length));
  return names.filter((name) => NAME.test(name) && files.includes(`${name}.json`)).sort();
}

async function text(read, file) {
  return new TextDecoder().decode(await read(file));
}

async function manifest(read, file) {
  let facts;
  try {
    facts = JSON.parse(await text(read, file));
  } catch (error) {
    throw new Error(`${file}: cannot be read (${told(error)}); serve the folder that garnish export wrote`);
  }
  if (facts?.format !== FORMAT) throw new Error(`${file}: has format ${facts?.format}, this page reads ${FORMAT}; export it again with --page`);
  return facts;
}

/** Compare a file's digest; browsers compute it only where the page is of this machine, or came over TLS. */
async function check(data, digest, file) {
  const { subtle } = globalThis.crypto ?? {};
  if (!subtle) return;
  const found = new Uint8Array(await subtle.digest("SHA-256", data));
  const hex = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== digest) throw new Error(`${file}: is not the file of its manifest (their SHA-256 differ); copy or export it again`);
}

function told(error) {
  return String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 200);
}
