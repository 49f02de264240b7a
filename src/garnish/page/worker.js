// The graph runs here, beside the page, which stays usable meanwhile. Messages in: {id, planes, width, height, bundle}.
// Out: {facts, bundles} once it is open; {id, maps, seconds}; {id, error}.

import * as ort from "./ort.wasm.min.mjs";
import { Graph } from "./graph.js";
import { predict } from "./maps.js";

// threads need a page that is isolated from all others, by two headers of its server
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;

async function read(name) {
  const answer = await fetch(new URL(name, import.meta.url), { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${name}: is not there (${answer.status}); serve the folder that garnish export wrote`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function opened() {
  const graph = await Graph.open(ort, read);
  const colours = JSON.parse(new TextDecoder().decode(await read("colours.json")));
  postMessage({ facts: graph.facts, bundles: graph.bundles });
  return { graph, colours };
}

const ready = opened();
ready.catch((error) => postMessage({ error: error.message }));

onmessage = async ({ data: { id, planes, width, height, bundle } }) => {
  try {
    const { graph, colours } = await ready;
    const start = performance.now();
    const maps = await predict(graph, planes, width, height, colours, bundle);
    postMessage({ id, maps, seconds: (performance.now() - start) / 1000 });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
