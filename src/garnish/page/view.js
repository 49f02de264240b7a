// What pages show of a picture and its maps: figures with legends. Names reach the page as text alone.

/** An element with attributes and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function canvas(image, label) {
  const made = element("canvas", { role: "img", "aria-label": label });
  [made.width, made.height] = [image.width, image.height];
  made.getContext("2d").putImageData(image, 0, 0);
  return made;
}

function figure(name, ...content) {
  return element("figure", {}, ...content.slice(0, 1), element("figcaption", {}, element("b", {}, name)), ...content.slice(1));
}

/** The figure of the picture itself. */
export function pictureFigure(name, image, notes) {
  const told = notes.map((note) => element("p", { class: "note" }, note));
  return figure("picture", canvas(image, `picture ${name}`), ...told);
}

/** The figure of one task, or one line where the page lacks its decoding. */
export function mapFigure({ task, rgba, legend, unknown }, width, height) {
  if (unknown !== undefined) {
    return figure(task, element("p", { class: "empty" }, `${task}: this page does not know the decoding ${unknown}`));
  }
  const made = figure(task, canvas(new ImageData(rgba, width, height), `map of ${task}`), legendOf(legend));
  made.dataset.task = task;
  return made;
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/** A legend; chosen(id, button): of classes each is a button, which calls it. */
export function legendOf(legend, chosen = null) {
  if (legend.kind === "scale") return scale(legend);
  const items = legend.kind === "classes" ? classes(legend.entries) : legend.entries;
  return element("ul", { class: "legend" }, ...items.map((one) => item(one, legend.kind === "classes" ? chosen : null)));
}

/** Classes that the map holds, the largest first. */
function classes(entries) {
  const seen = entries.map((entry, id) => ({ ...entry, id })).filter(({ share }) => share > 0);
  return seen.sort((a, b) => b.share - a.share).map(({ share, ...entry }) => ({ ...entry, about: percent(share) }));
}

function percent(share) {
  return share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`;
}

function item({ name, colour, about, id }, chosen) {
  const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = css(colour);
  const told = [swatch, element("span", { class: "label" }, name), ...(about ? [element("span", { class: "dim" }, about)] : [])];
  if (chosen === null) return element("li", {}, ...told);
  const button = element("button", { type: "button", "aria-pressed": "false", "data-id": String(id), title: `show ${name} alone, or with others` }, ...told);
  button.addEventListener("click", () => chosen(id, button));
  return element("li", {}, button);
}

function scale({ colours, ends }) {
  const bar = element("span", { class: "scale", "aria-hidden": "true" });
  const stops = colours.filter((_, n) => n % 16 === 0 || n === colours.length - 1);
  bar.style.background = `linear-gradient(to right, ${stops.map(css).join(", ")})`;
  return element("div", { class: "legend" }, element("span", {}, ends[0]), bar, element("span", {}, ends[1]));
}
