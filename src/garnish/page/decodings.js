// Raw outputs → maps → colours, by the name and options of a decoding of garnish.decodings: the same numbers, in
// float32 where NumPy computes in float32. A map is {values, channels}: planes of height · width numbers.
// Letters: C channels of a raw output (planes, one after the other), P pixels.

const f32 = Math.fround;
const SOFTPLUS_UNIT = f32(Math.log(Math.E - 1));

/** Round to the nearest integer, halves to the even one, as NumPy does. */
function rint(x) {
  const low = Math.floor(x), rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/** A number in [0, 1] → 0 to 255; not a number is 0. */
function eightBits(x) {
  return rint(f32((x > 0 ? Math.min(x, 1) : 0) * 255));
}

/** (P) → RGBA bytes; colour(p) gives [r, g, b]. */
function painted(pixels, colour) {
  const rgba = new Uint8ClampedArray(4 * pixels);
  for (let p = 0; p < pixels; p++) {
    const [r, g, b] = colour(p);
    rgba[4 * p] = r; rgba[4 * p + 1] = g; rgba[4 * p + 2] = b; rgba[4 * p + 3] = 255;
  }
  return rgba;
}

function classColours(names, colours) {
  return names.map((name, id) => (name.toLowerCase() === "background" ? colours.background : colours.classes[id]));
}

const Classes = {
  channels: ({ names }) => names.length,

  decode(raw, { names }) {
    const pixels = raw.length / names.length, values = new Uint8Array(pixels), best = raw.slice(0, pixels);
    for (let c = 1; c < names.length; c++) {
      for (let p = 0, at = c * pixels; p < pixels; p++, at++) {
        if (raw[at] > best[p]) { best[p] = raw[at]; values[p] = c; } // the first of equal ones stays
      }
    }
    return { values, channels: 1 };
  },

  paint({ values }, { names }, colours) {
    const table = classColours(names, colours);
    return painted(values.length, (p) => table[values[p]] ?? colours.nothing);
  },

  legend({ values }, { names }, colours) {
    const counts = new Array(names.length).fill(0), table = classColours(names, colours);
    for (const id of values) counts[id]++;
    const entries = names.map((name, id) => ({ name, colour: table[id], share: counts[id] / values.length }));
    return { kind: "classes", entries };
  },
};

const SoftplusDepth = {
  channels: () => 1,

  decode(raw, { min_metres, max_metres }) {
    const values = new Float32Array(raw.length), [low, high, unit] = [f32(min_metres), f32(max_metres), f32(max_metres / 4)];
    for (let p = 0; p < raw.length; p++) {
      const z = f32(raw[p] + SOFTPLUS_UNIT);
      const softplus = f32(Math.max(z, 0) + f32(Math.log1p(f32(Math.exp(-Math.abs(z))))));
      values[p] = Math.min(Math.max(f32(unit * softplus), low), high);
    }
    return { values, channels: 1 };
  },

  paint({ values }, { min_metres, max_metres }, colours) {
    const [low, high] = [f32(min_metres), f32(max_metres)];
    return painted(values.length, (p) => {
      const metres = values[p];
      if (!(metres >= low && metres <= high)) return colours.nothing;
      const share = f32(1 - f32(metres / high));
      return colours.scale[Math.min(Math.trunc(f32(Math.min(Math.max(share, 0), 1) * 256)), 255)];
    });
  },

  legend(map, { max_metres }, colours) {
    return { kind: "scale", colours: [...colours.scale].reverse(), ends: ["0 m", `${max_metres} m`] };
  },
};

/** The smallest and the largest finite number of a map; [0, 0] where it has none. */
function ends(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}

const UnitlessDepth = {
  channels: () => 1,

  decode: (raw) => ({ values: Float32Array.from(raw), channels: 1 }),

  // in 64 bits, as NumPy does here: differences of 32 bits may be too large for these
  paint({ values }, { larger }, colours) {
    const [low, high] = ends(values), span = high - low;
    return painted(values.length, (p) => {
      if (!Number.isFinite(values[p])) return colours.nothing;
      const share = span ? (values[p] - low) / span : 0.5;
      return colours.scale[Math.min(Math.trunc((larger === "nearer" ? share : 1 - share) * 256), 255)];
    });
  },

  // of this picture alone, without a unit
  legend: (map, options, colours) => ({ kind: "scale", colours: [...colours.scale], ends: ["farthest", "nearest"] }),
};

const Directions = {
  channels: () => 3,

  decode(raw, options, colours) {
    const pixels = raw.length / 3, values = new Float32Array(raw.length), least = f32(colours.shortest_vector);
    for (let p = 0; p < pixels; p++) {
      const length = Math.max(lengthAt(raw, p, pixels), least);
      for (let at = p; at < raw.length; at += pixels) values[at] = raw[at] / length;
    }
    return { values, channels: 3 };
  },

  paint({ values }, options, colours) {
    const pixels = values.length / 3, least = f32(colours.shortest_vector);
    const byte = (at) => eightBits(f32(f32(values[at] + 1) / 2));
    return painted(pixels, (p) => {
      const length = lengthAt(values, p, pixels);
      if (!(Number.isFinite(length) && length > least)) return colours.nothing;
      return [byte(p), byte(p + pixels), byte(p + 2 * pixels)];
    });
  },

  legend: () => ({
    kind: "entries",
    entries: [
      { name: "x", colour: [255, 128, 128] },
      { name: "y", colour: [128, 255, 128] },
      { name: "z", colour: [128, 128, 255] },
    ],
  }),
};

function lengthAt(vectors, p, pixels) {
  const [x, y, z] = [vectors[p], vectors[p + pixels], vectors[p + 2 * pixels]];
  return f32(Math.sqrt(f32(f32(f32(x * x) + f32(y * y)) + f32(z * z))));
}

const Probabilities = {
  channels: () => 1,

  decode(raw) {
    const values = new Float32Array(raw.length);
    for (let p = 0; p < raw.length; p++) {
      const small = f32(Math.exp(-Math.abs(raw[p])));
      values[p] = (raw[p] < 0 ? small : 1) / f32(1 + small);
    }
    return { values, channels: 1 };
  },

  paint({ values }, { dark, none_colour }) {
    return painted(values.length, (p) => {
      if (values[p] === 255) return none_colour; // of targets
      const grey = eightBits(dark ? f32(1 - Math.min(Math.max(values[p], 0), 1)) : values[p]);
      return [grey, grey, grey];
    });
  },

  legend: (map, { dark }) => {
    const [no, yes] = dark ? [[255, 255, 255], [0, 0, 0]] : [[0, 0, 0], [255, 255, 255]];
    return { kind: "scale", colours: [no, yes], ends: ["0", "1"] };
  },
};

/** Name → {channels(options), decode(raw, options, colours), paint(map, options, colours), legend(map, options, colours)}. */
export const DECODINGS = new Map(Object.entries({ Classes, SoftplusDepth, UnitlessDepth, Directions, Probabilities }));
