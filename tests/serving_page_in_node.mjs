// Runs the modules of the server's page in node: node serving_page_in_node.mjs FOLDER (the page's files) JOB (job.json).
// npz: answer.npz → name → {shape, kind, values}. readings, differences: of the maps in job.json. camera: steps.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, job] = process.argv.slice(2);
const module = (name) => import(pathToFileURL(join(folder, name)));
const told = JSON.parse(readFileSync(join(job, "job.json")));
const colours = JSON.parse(readFileSync(join(folder, "colours.json")));
const map = ({ values, confidence, ...one }) => ({ ...one, values: Float32Array.from(values), confidence });

async function npz() {
  const { readNpz } = await module("npz.js");
  const data = readFileSync(join(job, "answer.npz"));
  const arrays = await readNpz(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
  return Object.fromEntries([...arrays].map(([name, { shape, values }]) => [name, { shape, kind: values.constructor.name, values: [...values] }]));
}

async function readings() {
  const { reading } = await module("readings.js");
  return told.maps.map((one) => Array.from({ length: one.pixels }, (_, p) => reading(map(one), p)));
}

async function differences() {
  const { difference, whyNot } = await module("differences.js");
  return told.pairs.map(([a, b]) => {
    const [first, second] = [map(a), map(b)], why = whyNot(first, second);
    if (why !== null) return { why };
    const { rgba, legend, reading, share } = difference(first, second, colours);
    return { rgba: [...rgba], ends: legend.ends, share, readings: Array.from({ length: a.pixels }, (_, p) => reading(p)) };
  });
}

async function camera() {
  const { Camera } = await module("camera.js");
  const made = new Camera(...told.size), seen = [];
  for (const [name, ...given] of told.steps) {
    made[name](...given);
    seen.push({ zoom: made.zoom, ...made.part, cursor: made.cursor });
  }
  return seen;
}

let answer;
try {
  answer = { found: await { npz, readings, differences, camera }[told.what]() };
} catch (error) {
  answer = { error: error.message };
}
writeFileSync(join(job, "answer.json"), JSON.stringify(answer, (_, value) => (Number.isNaN(value) ? "nan" : value)));
process.exit(0);
