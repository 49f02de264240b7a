// The value of a map at one pixel, as people read it. A map: {name of its decoding, options, values, confidence, pixels}.

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const degrees = (radians) => (radians * 180) / Math.PI;
const short = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(4));
const NONE = "nothing";

const READINGS = {
  Classes({ options, values, confidence }, p) {
    const name = options.names[values[p]];
    if (name === undefined) return NONE;
    return confidence ? `${name} ${percent(confidence[p])}` : name;
  },
  SoftplusDepth({ values, options }, p) {
    return values[p] >= options.min_metres * 0.999 && values[p] <= options.max_metres * 1.001 ? `${values[p].toFixed(3)} m` : NONE;
  },
  UnitlessDepth({ values, options }, p) {
    return Number.isFinite(values[p]) ? `${short(values[p])} (no unit, larger is ${options.larger})` : NONE;
  },
  Directions(map, p) {
    const [x, y, z] = vector(map, p);
    if (!(Math.hypot(x, y, z) > 1e-3)) return NONE;
    return `${angle([x, y, z], [0, 0, -1]).toFixed(1)}° from the camera · ${[x, y, z].map((one) => one.toFixed(2)).join(" ")}`;
  },
  Probabilities({ values }, p) {
    return values[p] >= 0 && values[p] <= 1 ? values[p].toFixed(3) : NONE;
  },
};

/** Text of a pixel; of a decoding that the page lacks, its numbers. */
export function reading(map, p) {
  if (map.name in READINGS) return READINGS[map.name](map, p);
  const told = [];
  for (let at = p; at < map.values.length && told.length < 4; at += map.pixels) told.push(short(map.values[at]));
  return told.join(", ");
}

/** The three numbers of a map of vectors at a pixel. */
export function vector({ values, pixels }, p) {
  return [values[p], values[p + pixels], values[p + 2 * pixels]];
}

/** Degrees between two vectors. */
export function angle(a, b) {
  const product = a[0] * b[0] + a[1] * b[1] + a[2] * b[2], lengths = Math.hypot(...a) * Math.hypot(...b);
  return degrees(Math.acos(Math.min(Math.max(product / lengths, -1), 1)));
}
