// What lies over the picture, pixel for pixel: the picture itself, each map of the answer, the difference of two.
// A layer: {key, title, canvas to draw from, legend, reading(p) → text, colour(p) → [r, g, b]}.

import { DECODINGS } from "./decodings.js";
import { difference } from "./differences.js";
import { readNpz } from "./npz.js";
import { reading } from "./readings.js";

/** Bytes of an answer → {width, height, timings, layers: Map of "bundle/task" → layer}. */
export async function readAnswer(data, colours) {
  const arrays = await readNpz(data);
  const told = JSON.parse(new TextDecoder().decode(arrays.get("answer.json").values));
  const { width, height } = told.picture, layers = new Map();
  for (const [bundle, tasks] of Object.entries(told.bundles)) {
    for (const [task, facts] of Object.entries(tasks)) {
      const key = `${bundle}/${task}`;
      layers.set(key, mapLayer({ key, bundle, task, facts }, arrays, [width, height], colours));
    }
  }
  return { width, height, timings: told.timings ?? {}, layers };
}

function mapLayer(about, arrays, [width, height], colours) {
  const { key, facts: { decoding: { name, options } } } = about, array = arrays.get(key), pixels = width * height;
  const channels = array ? array.values.length / pixels : 0;
  if (!array || String(array.shape.slice(-2)) !== String([height, width])) throw new Error(`${key}: the server's answer lacks its map; ask again`);
  const map = { name, options, pixels, channels, values: array.values, confidence: arrays.get(`${key}.confidence`)?.values };
  const decoding = DECODINGS.get(name);
  const layer = { ...about, title: key, width, height, map, reading: (p) => reading(map, p), shown: new Set() };
  if (!decoding) return { ...layer, unknown: name, canvas: null, legend: null, colour: () => null };
  const rgba = decoding.paint(map, options, colours);
  return Object.assign(layer, { legend: decoding.legend(map, options, colours), ...painted(rgba, width, height) });
}

/** The layer of the picture; null where the browser cannot read it. */
export function pictureLayer(image) {
  const colour = (p) => [...image.data.subarray(4 * p, 4 * p + 3)];
  return { key: "picture", title: "picture", ...painted(image.data, image.width, image.height), reading: (p) => colour(p).join(" "), colour };
}

/** The layer of the difference of two maps that have one. */
export function differenceLayer(a, b, colours) {
  const { rgba, ...told } = difference(a.map, b.map, colours);
  return { key: "difference", ...told, ...painted(rgba, a.width, a.height) };
}

function painted(rgba, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  return { canvas, rgba, colour: (p) => [...rgba.subarray(4 * p, 4 * p + 3)] };
}

/** Show some classes of a layer alone, or all where none is chosen; the picture is seen in place of the others. */
export function filterClasses(layer, id) {
  if (!layer.shown.delete(id)) layer.shown.add(id);
  const seen = new Uint8ClampedArray(layer.rgba);
  if (layer.shown.size) layer.map.values.forEach((value, p) => { if (!layer.shown.has(value)) seen[4 * p + 3] = 0; });
  layer.canvas.getContext("2d").putImageData(new ImageData(seen, layer.width, layer.height), 0, 0);
}
