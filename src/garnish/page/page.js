// The page: a file chosen or dropped goes to the worker, and what comes back is shown. The newest picture counts.

import { planes, readPicture } from "./picture.js";
import { mapFigure, pictureFigure } from "./view.js";

const at = (id) => document.getElementById(id);
const [status, problem, maps, file, drop, bundle, size] = ["status", "problem", "maps", "file", "drop", "bundle", "size"].map(at);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
let [newest, chosen, shown] = [0, null, null];

function say(text) {
  status.textContent = text;
}

function fail(text) {
  problem.textContent = text;
  problem.hidden = !text;
  if (text) say("");
}

function opened({ facts, bundles }) {
  const { name, licence, weights_source: source, non_commercial: restricted } = facts.backbone;
  at("model").textContent = `${name}, ${facts.precision}`;
  at("weights").textContent = `Weights: ${source} (${licence}${restricted ? ", not for commercial use" : ""}).`;
  bundle.replaceChildren(...bundles.map((one) => new Option(one)));
  at("bundles").hidden = bundles.length === 0;
  if (facts.form === "inputs" && bundles.length === 0) return fail("This folder holds no bundle; export one for its graph.");
  file.disabled = false;
  drop.classList.add("ready");
  if (chosen === null) say("Ready.");
}

async function show(picture) {
  if (!picture || file.disabled) return;
  const id = ++newest;
  chosen = picture;
  fail("");
  say(`Computing the maps of ${picture.name ?? "the picture"} …`);
  document.body.setAttribute("aria-busy", "true");
  try {
    const read = await readPicture(picture, size.value ? Number(size.value) : null);
    if (id !== newest) return;
    shown = { ...read, name: picture.name ?? "picture" };
    const given = planes(read.image.data);
    const message = { id, planes: given, width: read.width, height: read.height, bundle: bundle.value || null };
    worker.postMessage(message, [given.buffer]);
  } catch (error) {
    if (id === newest) done(() => fail(error.message));
  }
}

function done(then) {
  document.body.removeAttribute("aria-busy");
  then();
}

worker.onmessage = ({ data }) => {
  if (data.facts) return opened(data);
  if (data.id === undefined) return fail(data.error);
  if (data.id !== newest) return undefined; // of an earlier picture
  if (data.error) return done(() => fail(data.error));
  const { width, height, image, name, notes } = shown;
  return done(() => {
    maps.replaceChildren(pictureFigure(name, image, notes), ...data.maps.map((map) => mapFigure(map, width, height)));
    say(`${name}: ${width}×${height}, ${data.seconds.toFixed(1)} s`);
  });
};
worker.onerror = (event) => {
  event.preventDefault();
  fail(`This browser cannot run the page's worker (${event.message || "module workers are missing"}); take a newer one.`);
};

file.addEventListener("change", () => { show(file.files[0]); file.value = ""; });
for (const choice of [bundle, size]) choice.addEventListener("change", () => show(chosen));
addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
addEventListener("dragleave", () => drop.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  show([...event.dataTransfer.files][0]);
});
addEventListener("paste", (event) => show([...event.clipboardData.files][0]));
say("Reading the graph …");
at("served").hidden = true;
drop.hidden = false;
