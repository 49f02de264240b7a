// The maps of one picture: the large view, the values under the cursor, and a figure for each map.

import { Camera } from "./camera.js";
import { whyNot } from "./differences.js";
import { differenceLayer, filterClasses } from "./layers.js";
import { Pane, keyed } from "./pane.js";
import { css, element, legendOf } from "./view.js";

const at = (id) => document.getElementById(id);
const SPOKEN_AFTER = 400; // ms without a further key

export class Looking {
  /** download(layer): save the file of a map. */
  constructor(colours, download) {
    Object.assign(this, { colours, download, opacity: 1, wipe: 0.5, differing: false, layers: [], panes: [], camera: new Camera(1, 1) });
    this.large = at("large");
    for (const side of ["left", "right"]) at(side).addEventListener("change", () => this.#chosen());
    at("wipe-mode").addEventListener("click", () => this.#mode(false));
    at("difference-mode").addEventListener("click", () => this.#mode(true));
    at("opacity").addEventListener("input", ({ target }) => {
      this.opacity = target.value / 100;
      at("opacity-told").textContent = `${target.value} %`;
      this.redraw();
    });
    at("in").addEventListener("click", () => this.camera.zoomBy(1.5, this.camera.cursor ?? undefined));
    at("out").addEventListener("click", () => this.camera.zoomBy(1 / 1.5, this.camera.cursor ?? undefined));
    at("fit").addEventListener("click", () => this.camera.fit());
    this.large.addEventListener("keydown", (event) => { if (keyed(event, this.camera)) this.#speak(); });
    this.#handle();
  }

  /** Begin with another picture. picture: its layer, or null where the browser cannot show it. */
  begin(picture, width, height) {
    this.picture = picture;
    this.camera = new Camera(width, height);
    this.camera.addEventListener("change", () => this.redraw());
    at("hero").style.aspectRatio = `${width} / ${height}`;
    at("seen").style.maxWidth = `calc(74vh * ${width / height})`;
    this.layers = [];
  }

  /** Show these maps (layers), in this order. */
  show(layers, several) {
    this.layers = layers.map((layer) => Object.assign(layer, { title: several ? `${layer.bundle} / ${layer.task}` : layer.task }));
    for (const pane of this.panes) pane.close();
    const all = [...(this.picture ? [this.picture] : []), ...this.layers.filter((layer) => layer.canvas)];
    this.byKey = new Map(all.map((layer) => [layer.key, layer]));
    for (const [side, nth] of [["left", 0], ["right", 1]]) this.#options(at(side), all, nth);
    const figures = this.layers.map((layer) => this.#figure(layer));
    at("maps").replaceChildren(...figures.map(({ figure }) => figure));
    this.panes = [
      new Pane(this.large, this.camera, () => this.#seen(), { wheel: true }),
      ...figures.flatMap(({ canvas, layer }) => (canvas ? [new Pane(canvas, this.camera, () => this.#one(layer))] : [])),
    ];
    at("looking").hidden = all.length === 0;
    this.#rows();
    this.#chosen();
  }

  /** Draw all panes and tell the values, at the next frame. */
  redraw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      for (const pane of this.panes) pane.draw();
      this.#values();
      at("fit").textContent = `${Math.round(100 * this.camera.zoom)} %`;
    });
  }

  #options(select, all, nth) {
    const kept = this.byKey.has(select.value) ? select.value : all[Math.min(nth, all.length - 1)]?.key;
    select.replaceChildren(...all.map(({ key, title }) => new Option(title, key)));
    select.value = kept ?? "";
  }

  #sides() {
    return ["left", "right"].map((side) => this.byKey.get(at(side).value) ?? null);
  }

  #seen() {
    const [left, right] = this.#sides(), { picture, opacity, wipe } = this;
    if (this.differing) return { picture, left: null, right: this.difference, opacity, wipe: 0 };
    return { picture, left, right, opacity, wipe };
  }

  #one(layer) {
    return { picture: this.picture, left: null, right: layer, opacity: this.opacity, wipe: 0 };
  }

  #mode(differing) {
    const why = whyNot(...this.#sides().map((layer) => layer?.map));
    this.differing = differing && why === null;
    this.#chosen();
    if (differing && why !== null) at("large-legend").replaceChildren(element("p", { class: "about" }, `No difference: ${why}.`));
  }

  /** Other sides, or another way to compare them. */
  #chosen() {
    const [left, right] = this.#sides(), why = whyNot(left?.map, right?.map), button = at("difference-mode");
    if (why !== null) this.differing = false;
    button.setAttribute("aria-disabled", String(why !== null));
    button.title = why ?? "";
    this.difference = this.differing ? differenceLayer(left, right, this.colours) : null;
    at("wipe-mode").setAttribute("aria-pressed", String(!this.differing));
    button.setAttribute("aria-pressed", String(this.differing));
    at("handle").hidden = this.differing || left === right;
    const told = this.difference ? [element("p", { class: "about" }, this.difference.title), legendOf(this.difference.legend)] : [];
    at("large-legend").replaceChildren(...told);
    this.#rows();
    this.redraw();
  }

  #figure(layer) {
    if (layer.unknown !== undefined) {
      const text = `${layer.title}: this page does not know the decoding ${layer.unknown}`;
      return { layer, figure: element("figure", {}, element("p", { class: "empty" }, text), this.#caption(layer)) };
    }
    const canvas = element("canvas", { role: "img", "aria-label": `map of ${layer.title}` });
    canvas.style.aspectRatio = `${layer.width} / ${layer.height}`;
    const figure = element("figure", { "data-key": layer.key }, canvas, this.#caption(layer), legendOf(layer.legend, (id, button) => {
      filterClasses(layer, id);
      button.setAttribute("aria-pressed", String(layer.shown.has(id)));
      this.redraw();
    }));
    for (const button of figure.querySelectorAll(".legend button")) button.setAttribute("aria-pressed", String(layer.shown.has(Number(button.dataset.id))));
    return { layer, figure, canvas };
  }

  #caption(layer) {
    const enlarge = element("button", { type: "button", class: "plain", title: "show it large, on the right" }, layer.title);
    enlarge.addEventListener("click", () => {
      if (this.byKey.has(layer.key)) at("right").value = layer.key;
      this.#chosen();
      this.large.scrollIntoView({ block: "nearest" });
    });
    const save = element("button", { type: "button", class: "save", "aria-label": `Save the file of ${layer.title}` }, "save");
    save.addEventListener("click", () => this.download(layer));
    return element("figcaption", {}, enlarge, element("span", { class: "value", "data-value": layer.key }), save);
  }

  /** The table of values: one row a layer. */
  #rows() {
    const rows = [...(this.picture ? [this.picture] : []), ...this.layers, ...(this.difference ? [this.difference] : [])];
    this.told = rows.map((layer) => {
      const swatch = element("span", { class: "swatch", "aria-hidden": "true" }), value = element("dd", { "data-row": layer.key }, "–");
      return { layer, swatch, value, term: element("dt", {}, swatch, element("span", {}, layer.title)) };
    });
    at("values").replaceChildren(...this.told.map(({ term, value }) => element("div", {}, term, value)));
  }

  #values() {
    const { cursor, width } = this.camera;
    if (!cursor) return;
    at("place").textContent = `column ${cursor.x}, row ${cursor.y}`;
    const captions = new Map([...document.querySelectorAll("[data-value]")].map((one) => [one.dataset.value, one]));
    for (const { layer, swatch, value } of this.told ?? []) {
      const p = cursor.y * width + cursor.x, text = layer.reading(p), colour = layer.colour(p);
      value.textContent = text;
      swatch.style.background = colour ? css(colour) : "none";
      const caption = captions.get(layer.key);
      if (caption) caption.textContent = text;
    }
  }

  #speak() {
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => {
      const told = this.told.slice(this.picture ? 1 : 0).map(({ layer, value }) => `${layer.title} ${value.textContent}`);
      at("spoken").textContent = `${at("place").textContent}: ${told.join(", ")}`;
    }, SPOKEN_AFTER);
  }

  #handle() {
    const handle = at("handle"), hero = at("hero");
    const put = (share) => {
      this.wipe = Math.min(Math.max(share, 0), 1);
      handle.style.left = `${100 * this.wipe}%`;
      handle.setAttribute("aria-valuenow", String(Math.round(100 * this.wipe)));
      this.redraw();
    };
    handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
    handle.addEventListener("pointermove", (event) => {
      const box = hero.getBoundingClientRect();
      if (handle.hasPointerCapture(event.pointerId)) return put((event.clientX - box.left) / box.width);
      const { x, y } = this.panes[0].place(event); // there are pixels below it, too
      return this.camera.point(x, y);
    });
    handle.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: this.wipe - 0.02, ArrowRight: this.wipe + 0.02, ArrowDown: this.wipe - 0.02, ArrowUp: this.wipe + 0.02, Home: 0, End: 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      put(to);
    });
    put(this.wipe);
  }
}
