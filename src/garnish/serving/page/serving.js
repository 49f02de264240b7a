// The page: a picture is sent once for all that is ticked, and what comes back is shown. The newest picture counts.

import { Choosing } from "./choosing.js";
import { addLatency, latencyLine } from "./latency.js";
import { pictureLayer, readAnswer } from "./layers.js";
import { Looking } from "./looking.js";
import { readPicture } from "./picture.js";
import { mapFile, predict, served } from "./server.js";
import { Trying, droppedBundle } from "./trying.js";

const at = (id) => document.getElementById(id);
const MOST_TRIES = 6; // of a server that is busy
const colours = await (await fetch(new URL("colours.json", import.meta.url))).json();
const choosing = new Choosing({ bundles: at("bundles"), tasks: at("tasks"), search: at("search") });
const looking = new Looking(colours, (layer) => saved(layer).catch(fail));
let [chosen, have, size, underWay] = [null, new Map(), null, null];

function say(text) {
  at("status").textContent = text;
}

function fail(error) {
  if (error.name === "AbortError") return;
  at("problem").textContent = error.message;
  at("problem").hidden = false;
  say("");
}

/** A picture that was chosen, dropped or pasted. */
async function take(picture) {
  if (!picture) return;
  chosen = { file: picture, name: picture.name ?? "picture" };
  [have, size] = [new Map(), null];
  const read = await readPicture(picture).catch(() => null); // of kinds that browsers do not read the maps are shown alone
  if (chosen.file !== picture) return;
  chosen.read = read;
  await ask();
}

/** Bundle → tasks that are wanted and not here yet. */
function missing() {
  const found = [...choosing.wanted].map(([bundle, tasks]) => [bundle, tasks.filter((task) => !have.has(`${bundle}/${task}`))]);
  return new Map(found.filter(([, tasks]) => tasks.length));
}

async function ask() {
  at("problem").hidden = true;
  underWay?.abort();
  if (!chosen) return;
  const { file } = chosen, wanted = missing(), ending = (underWay = new AbortController());
  if (wanted.size) {
    document.body.setAttribute("aria-busy", "true");
    try {
      const answer = await patiently(() => predict(file, wanted, ending.signal), ending.signal);
      const read = await readAnswer(answer.data, colours);
      if (chosen.file !== file || ending.signal.aborted) return;
      accept(read, answer.seconds, wanted);
    } catch (error) {
      if (underWay === ending) fail(error);
      return;
    } finally {
      if (underWay === ending) document.body.removeAttribute("aria-busy");
    }
  }
  shown();
}

/** Ask until the server is not busy any more; it says when to come again. */
async function patiently(asking, signal) {
  for (let left = MOST_TRIES; ; left--) {
    say(`Asking for the maps of ${chosen.name} …`);
    try {
      return await asking();
    } catch (error) {
      if (error.seconds === null || error.seconds === undefined || left === 0) throw error;
      say(`The server is busy; asking again in ${error.seconds} s.`);
      await new Promise((done) => setTimeout(done, 1000 * error.seconds));
      signal.throwIfAborted();
    }
  }
}

function accept({ width, height, timings, layers }, seconds, wanted) {
  if (!size) {
    size = { width, height };
    const { image } = chosen.read ?? {}, fits = image?.width === width && image?.height === height;
    chosen.notes = chosen.read ? [...chosen.read.notes.filter(() => fits)] : ["this browser does not show pictures of this kind"];
    if (chosen.read && !fits) chosen.notes.push(`the server reads it as ${width}×${height}, this browser as ${image.width}×${image.height}: it is not shown`);
    looking.begin(fits ? pictureLayer(image) : null, width, height);
  }
  for (const [key, layer] of layers) have.set(key, layer);
  const told = { tasks: layers.size, bundles: wanted.size, timings, seconds, megapixels: (width * height) / 1e6 };
  chosen.line = latencyLine(told);
  addLatency(at("answers"), told);
  at("latency").hidden = false;
}

function shown() {
  if (!size) return say("Tick a task.");
  const { wanted } = choosing, keys = [...wanted].flatMap(([bundle, tasks]) => tasks.map((task) => `${bundle}/${task}`));
  looking.show(keys.filter((key) => have.has(key)).map((key) => have.get(key)), wanted.size > 1);
  document.body.classList.add("looking");
  say([`${chosen.name}: ${size.width}×${size.height}`, ...chosen.notes, chosen.line].join(" · "));
}

/** Save the file of one map, as the server writes it. */
async function saved({ bundle, task }) {
  const file = await mapFile(chosen.file, bundle, task);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${chosen.name.replace(/\.[^.]*$/, "")}_${bundle}_${task}.${file.type === "image/tiff" ? "tif" : "png"}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function listed(ticked = null) {
  const { trunk, bundles: names } = await served();
  at("model").textContent = [trunk?.name, names.length === 1 ? names[0] : `${names.length} bundles`].filter(Boolean).join(", ");
  await choosing.show(names, ticked);
  if (!chosen) say(names.length ? "Ready." : "No bundle is served; send one below.");
}

const trying = new Trying(
  { form: at("form"), name: at("bundle-name"), token: at("token"), files: at("bundle-files"), told: at("sent"), send: at("send") },
  async (name) => {
    for (const key of [...have.keys()]) if (key.startsWith(`${name}/`)) have.delete(key);
    choosing.forget(name);
    await listed(name);
    await ask();
  },
);

choosing.addEventListener("change", () => ask());
choosing.addEventListener("failed", ({ detail }) => fail(detail));
at("file").addEventListener("change", ({ target }) => { take(target.files[0]); target.value = ""; });
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", async (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const [picture] = event.dataTransfer.files, bundle = await droppedBundle(event.dataTransfer).catch(() => null);
  if (!bundle) return take(picture);
  at("trying").open = true;
  at("trying").scrollIntoView({ block: "nearest" });
  return trying.take(bundle);
});
addEventListener("paste", (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files[0]); });
at("drop").classList.add("ready");
listed().catch(fail);
