// Where two maps of one kind, of two bundles, differ: a map of its own, with its colours, legend and values.

import { angle, vector } from "./readings.js";

const [SAME, OTHER] = [[38, 40, 44], [255, 150, 60]];
/** Decoding → how its difference is called, how large it may be (null: as large as it is here), and how a value is told. */
const KINDS = {
  Classes: { title: "where classes differ" },
  SoftplusDepth: { title: "difference in metres", most: null, told: (value) => `${value.toFixed(3)} m` },
  Directions: { title: "angle between normals", most: null, told: (value) => `${value.toFixed(1)}°` },
  Probabilities: { title: "difference of probabilities", most: 1, told: (value) => value.toFixed(3) },
};

/** Why two maps have no difference, in a line; null where they have one. */
export function whyNot(a, b) {
  if (!a || !b || a === b) return "choose a map on each side";
  if (a.name !== b.name) return "the two maps are of different kinds";
  if (a.name === "UnitlessDepth") return "depth without a unit has no common scale";
  if (!(a.name in KINDS)) return `this page does not know the decoding ${a.name}`;
  return a.pixels === b.pixels ? null : "the two maps have different sizes";
}

/** {title, rgba, legend, reading(p), share: of pixels that differ, of classes} of two maps that have a difference. */
export function difference(a, b, colours) {
  return a.name === "Classes" ? ofClasses(a, b) : ofNumbers(a, b, colours, KINDS[a.name]);
}

function ofClasses(a, b) {
  const names = (map, p) => map.options.names[map.values[p]] ?? "nothing"; // ids of two bundles may mean other classes
  const differs = (p) => names(a, p) !== names(b, p);
  const rgba = new Uint8ClampedArray(4 * a.pixels);
  let count = 0;
  for (let p = 0; p < a.pixels; p++) {
    const other = differs(p);
    count += other;
    rgba.set(other ? OTHER : SAME, 4 * p);
    rgba[4 * p + 3] = other ? 255 : 150;
  }
  const share = count / a.pixels, entries = [
    { name: "differs", colour: OTHER, about: `${(100 * share).toFixed(1)} %` },
    { name: "same", colour: SAME, about: `${(100 * (1 - share)).toFixed(1)} %` },
  ];
  const reading = (p) => (differs(p) ? `${names(a, p)} → ${names(b, p)}` : "same");
  return { title: KINDS.Classes.title, rgba, legend: { kind: "entries", entries }, reading, share };
}

function ofNumbers(a, b, colours, { title, most, told }) {
  const values = new Float32Array(a.pixels), vectors = a.name === "Directions";
  let largest = 0;
  for (let p = 0; p < a.pixels; p++) {
    values[p] = vectors ? angle(vector(a, p), vector(b, p)) : Math.abs(a.values[p] - b.values[p]);
    if (values[p] > largest) largest = values[p];
  }
  const end = most ?? largest, rgba = new Uint8ClampedArray(4 * a.pixels);
  for (let p = 0; p < a.pixels; p++) {
    const known = Number.isFinite(values[p]);
    rgba.set(known ? colours.scale[Math.min(Math.trunc((end ? values[p] / end : 0) * 256), 255)] : colours.nothing, 4 * p);
    rgba[4 * p + 3] = 255;
  }
  const legend = { kind: "scale", colours: colours.scale, ends: [told(0), told(end)] };
  return { title, rgba, legend, reading: (p) => (Number.isFinite(values[p]) ? told(values[p]) : "nothing") };
}
