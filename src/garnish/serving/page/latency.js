// How long answers took: by stage, with how many tasks of how many bundles each had.

import { element } from "./view.js";

const STAGES = ["decode", "queue", "forward", "encode"];
const MOST_ROWS = 8;
const milliseconds = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));

/** A line such as "3 tasks of 2 bundles, 132 ms: decode 4.1, queue 0.2, forward 97, encode 11, on the way 20". */
export function latencyLine({ tasks, bundles, timings, seconds }) {
  const stages = stagesOf(timings, seconds).map(([stage, value]) => `${stage} ${milliseconds(value)}`);
  return `${count(tasks, "task")} of ${count(bundles, "bundle")}, ${milliseconds(1000 * seconds)} ms: ${stages.join(", ")}`;
}

/** Put the newest answer at the top of the table. */
export function addLatency(body, told) {
  const { tasks, bundles, timings, seconds, megapixels } = told, stages = stagesOf(timings, seconds);
  const cells = [tasks, bundles, megapixels.toFixed(2), ...stages.map(([, value]) => milliseconds(value)), milliseconds(1000 * seconds)];
  const bar = element("div", { class: "stages", "aria-hidden": "true" }, ...stages.map(([stage, value]) => {
    const part = element("span", { class: stage.split(" ")[0] });
    part.style.flexGrow = String(Math.max(value, 0.01));
    return part;
  }));
  body.prepend(element("tr", {}, ...cells.map((cell) => element("td", {}, String(cell))), element("td", { class: "wide" }, bar)));
  while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
}

/** Stages of the server, then what is left: the way there and back, and reading. */
function stagesOf(timings, seconds) {
  const known = STAGES.map((stage) => [stage, Number(timings[stage]) || 0]);
  return [...known, ["on the way", Math.max(1000 * seconds - known.reduce((sum, [, value]) => sum + value, 0), 0)]];
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
