// One picture → the map of every task, painted, with its legend; a task whose decoding the page lacks is told.

import { DECODINGS } from "./decodings.js";

/**
 * graph: of graph.js; planes: (3 · P) bytes; colours: colours.json.
 * Returns a list of {task, map: {values, channels}, rgba, legend}, or {task, unknown: name of the decoding}.
 */
export async function predict(graph, planes, width, height, colours, bundle = null) {
  const tasks = await graph.tasks(bundle), raw = await graph.run(planes, width, height, bundle), found = [];
  for (const [task, { channels, decoding: { name, options } }] of Object.entries(tasks)) {
    const decoding = DECODINGS.get(name);
    if (decoding === undefined) {
      found.push({ task, unknown: name });
      continue;
    }
    if (decoding.channels(options) !== channels) {
      throw new Error(`task ${task}: has ${channels} channels, its decoding ${decoding.channels(options)}; export it again`);
    }
    const out = raw.get(task);
    if (!out.every(Number.isFinite)) throw new Error(`the output of task ${task} is not finite; ${instead(graph.facts.precision)}`);
    const map = decoding.decode(out, options, colours);
    found.push({ task, map, rgba: decoding.paint(map, options, colours), legend: decoding.legend(map, options, colours) });
  }
  return found;
}

function instead(precision) {
  if (precision === "fp32") return "its numbers overflow; check the picture, or the model that was exported";
  return `its numbers overflow in ${precision}; export it with --precision fp32`;
}
