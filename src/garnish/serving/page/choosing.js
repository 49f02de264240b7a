// Which bundles and tasks are wanted: boxes to tick. What a bundle holds is asked when it is first ticked.

import { about } from "./server.js";
import { element } from "./view.js";

const MANY = 12; // bundles, beyond which there is a field to search for one
const MOST_SHOWN = 60;

export class Choosing extends EventTarget {
  /** bundles, tasks: elements that the boxes go to; search: a field for part of a name. */
  constructor({ bundles, tasks, search }) {
    super();
    Object.assign(this, { bundles, tasks, search, names: [], held: new Map(), ticked: new Map() });
    search.addEventListener("input", () => this.#listed());
  }

  /** Show these bundles; one that is ticked stays so. */
  async show(names, ticked = null) {
    this.names = names;
    for (const name of this.ticked.keys()) if (!names.includes(name)) this.ticked.delete(name);
    this.search.parentElement.hidden = names.length <= MANY;
    const first = ticked ?? (this.ticked.size === 0 ? names[0] : undefined);
    if (first !== undefined) await this.tick(first, true);
    this.#listed();
  }

  /** Forget what is known of a bundle, which is another now. */
  forget(name) {
    this.held.delete(name);
    this.ticked.delete(name);
  }

  /** Tick a bundle with all of its tasks, or not. */
  async tick(name, wanted) {
    if (!wanted) {
      this.ticked.delete(name);
    } else {
      if (!this.held.has(name)) this.held.set(name, Object.entries((await about(name)).tasks ?? {}));
      this.ticked.set(name, new Set(this.held.get(name).map(([task]) => task)));
    }
    this.#tasks();
  }

  /** Bundle → its tasks that are wanted, in the order of the bundle. */
  get wanted() {
    const found = [...this.ticked].map(([name, chosen]) => [name, this.held.get(name).map(([task]) => task).filter((task) => chosen.has(task))]);
    return new Map(found.filter(([, tasks]) => tasks.length));
  }

  #listed() {
    const part = this.search.value.trim().toLowerCase(), fits = this.names.filter((name) => name.toLowerCase().includes(part));
    const seen = [...new Set([...this.ticked.keys(), ...fits])].slice(0, MOST_SHOWN).sort(), before = document.activeElement;
    const focused = this.bundles.contains(before) ? before.getAttribute("aria-label") : null; // stays where it was
    this.bundles.replaceChildren(...seen.map((name) => this.#box(name, this.ticked.has(name), (wanted) => this.#changed(name, wanted))));
    if (fits.length > MOST_SHOWN) this.bundles.append(element("span", { class: "dim" }, `and ${fits.length - MOST_SHOWN} more`));
    if (focused !== null) [...this.bundles.querySelectorAll("input")].find((box) => box.getAttribute("aria-label") === focused)?.focus();
  }

  #tasks() {
    const rows = [...this.ticked].map(([name, chosen]) => {
      const boxes = this.held.get(name).map(([task]) => this.#box(task, chosen.has(task), (wanted) => {
        if (wanted) chosen.add(task); else chosen.delete(task);
        this.#tell();
      }, `${task} of ${name}`));
      return element("div", { class: "chips", role: "group", "aria-label": `tasks of ${name}` }, element("span", { class: "of" }, name), ...boxes);
    });
    this.tasks.replaceChildren(...rows);
  }

  #box(text, ticked, then, label = text) {
    const box = element("input", { type: "checkbox", "aria-label": label });
    box.checked = ticked;
    box.addEventListener("change", () => then(box.checked));
    return element("label", { class: "chip" }, box, element("span", {}, text));
  }

  async #changed(name, wanted) {
    try {
      await this.tick(name, wanted);
      this.#tell();
    } catch (error) {
      this.dispatchEvent(new CustomEvent("failed", { detail: error }));
    }
    this.#listed();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}
