// A bundle of one's own: its folder, or its two files, dropped or chosen, is sent to the server under a name.

import { putBundle } from "./server.js";

const FILES = ["bundle.json", "weights.safetensors"];

/** Files of a drop that holds a bundle → {name, files}, or null where it holds none. */
export async function droppedBundle(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folder = entries.find((entry) => entry.isDirectory);
  if (folder) {
    const inside = await new Promise((done, failed) => folder.createReader().readEntries(done, failed));
    const wanted = inside.filter((entry) => entry.isFile && FILES.includes(entry.name));
    return { name: folder.name, files: await Promise.all(wanted.map((entry) => new Promise((done, failed) => entry.file(done, failed)))) };
  }
  const files = [...transfer.files].filter((file) => FILES.includes(file.name));
  return files.length ? { name: "", files } : null;
}

/** The form: fields name, token and files; then(name) is called when the server has the bundle. */
export class Trying {
  constructor({ form, name, token, files, told, send }, then) {
    Object.assign(this, { form, name, token, told, send, chosen: new Map() });
    files.addEventListener("change", () => this.take({ name: folderOf(files.files), files: [...files.files] }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#sent(then);
    });
  }

  /** Take the files of a bundle, which are sent when the button is pressed. */
  take({ name, files }) {
    this.chosen = new Map(files.filter((file) => FILES.includes(file.name)).map((file) => [file.name, file]));
    if (name && !this.name.value) this.name.value = name.replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 100);
    const lacking = FILES.filter((file) => !this.chosen.has(file));
    const bytes = [...this.chosen.values()].reduce((sum, file) => sum + file.size, 0);
    this.#say(lacking.length ? `${lacking.join(" and ")} missing: choose both files of a bundle` : `${FILES.join(" and ")}: ${(bytes / 1e6).toFixed(1)} MB, ready to send`);
    this.send.disabled = lacking.length > 0;
  }

  async #sent(then) {
    const name = this.name.value.trim();
    if (!name || this.send.disabled) return;
    this.send.disabled = true;
    this.#say(`Sending ${name} …`);
    const start = performance.now();
    try {
      await putBundle(name, this.chosen, this.token.value.trim());
      this.#say(`${name} is served (${((performance.now() - start) / 1000).toFixed(2)} s).`);
      await then(name);
    } catch (error) {
      this.#say(error.message);
    }
    this.send.disabled = false;
  }

  #say(text) {
    this.told.textContent = text;
  }
}

function folderOf(files) {
  return files[0]?.webkitRelativePath?.split("/").at(-2) ?? "";
}
