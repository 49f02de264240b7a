// Runs the page's modules in node: node page_in_node.mjs FOLDER (the page's files) JOB (job.json and .bin files).
// decode: raw_N.bin and map_N.bin of each case → decoded_N.bin, painted_N.bin (of decoded) and given_N.bin (of map_N).
// predict: rgba.bin → for each task, TASK.map.bin and TASK.rgba.bin; facts in answer.json. read: answer.json alone.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, job] = process.argv.slice(2);
const module = (name) => import(pathToFileURL(join(folder, name)));
const bytes = (name, from = job) => new Uint8Array(readFileSync(join(from, name)));
const floats = (name) => new Float32Array(bytes(name).buffer);
const put = (name, values) => writeFileSync(join(job, name), new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
const told = JSON.parse(readFileSync(join(job, "job.json")));
const colours = JSON.parse(readFileSync(join(folder, "colours.json")));

async function decode() {
  const { DECODINGS } = await module("decodings.js");
  const answer = told.cases.map(({ name, options, kind }, n) => {
    const decoding = DECODINGS.get(name);
    if (!decoding) return null;
    const decoded = decoding.decode(floats(`raw_${n}.bin`), options, colours);
    put(`decoded_${n}.bin`, decoded.values);
    put(`painted_${n}.bin`, decoding.paint(decoded, options, colours));
    const values = kind === "uint8" ? bytes(`map_${n}.bin`) : floats(`map_${n}.bin`);
    put(`given_${n}.bin`, decoding.paint({ ...decoded, values }, options, colours));
    return { channels: decoding.channels(options), legend: decoding.legend(decoded, options, colours) };
  });
  return { answer };
}

async function predict() {
  const ort = await module("ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  const [{ Graph }, { predict: run }, { planes }] = await Promise.all(["graph.js", "maps.js", "picture.js"].map(module));
  const graph = await Graph.open(ort, async (name) => bytes(name, told.export));
  const maps = await run(graph, planes(bytes("rgba.bin")), told.width, told.height, colours, told.bundle);
  for (const { task, map, rgba } of maps) {
    if (!map) continue;
    put(`${task}.map.bin`, map.values);
    put(`${task}.rgba.bin`, rgba);
  }
  return { bundles: graph.bundles, tasks: maps.map(({ task, unknown }) => [task, unknown ?? null]) };
}

let answer;
try {
  answer = await { decode, predict }[told.what]();
} catch (error) {
  answer = { error: error.message };
}
writeFileSync(join(job, "answer.json"), JSON.stringify(answer));
process.exit(0);
