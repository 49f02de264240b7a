// One view of the picture: a canvas that draws a layer, or two beside each other, over it, as the camera sees them.

const SMOOTH = 6; // pixels of the screen for one of the picture, below which a picture is drawn smooth
const LONG_PRESS_SLIP = 6; // pixels of the screen that a finger may slip and still have tapped

export class Pane {
  /** canvas: the element; camera: shared by all panes; what(): {picture, left, right, opacity, wipe} now. */
  constructor(canvas, camera, what, { wheel = false } = {}) {
    Object.assign(this, { canvas, camera, what, wheel, pointers: new Map(), slipped: 0 });
    const { signal } = (this.ending = new AbortController());
    const on = (name, then, options = {}) => canvas.addEventListener(name, then, { signal, ...options });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#moved(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.#up(event));
    on("wheel", (event) => this.#wheeled(event), { passive: false });
    on("dblclick", () => camera.fit());
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(canvas);
  }

  close() {
    this.ending.abort();
    this.resized.disconnect();
  }

  /** Where an event is on the picture. */
  place({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect(), { left, top, width, height } = this.camera.part;
    return { x: left + ((clientX - box.left) / box.width) * width, y: top + ((clientY - box.top) / box.height) * height };
  }

  /** Pixels of the picture that one of the screen stands for. */
  get scale() {
    return this.camera.part.width / this.canvas.getBoundingClientRect().width;
  }

  draw() {
    const { canvas, camera } = this, ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * ratio));
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d"), { picture, left, right, opacity, wipe } = this.what();
    context.clearRect(0, 0, width, height);
    const border = Math.round(wipe * width);
    this.#layer(context, picture, 1, 0, width);
    if (border > 0) this.#layer(context, left, left === picture ? 1 : opacity, 0, border);
    if (border < width) this.#layer(context, right, right === picture ? 1 : opacity, border, width);
    if (camera.cursor) this.#cross(context, ratio);
    canvas.style.touchAction = camera.zoom > 1 ? "none" : "pan-y";
  }

  #layer(context, layer, opacity, from, to) {
    if (!layer?.canvas) return;
    const { width, height } = this.canvas, part = this.camera.part, share = layer.canvas.width / this.camera.width;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, height);
    context.clip();
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = width < part.width * (layer.key === "picture" ? SMOOTH : 1); // numbers are never blended
    context.drawImage(layer.canvas, part.left * share, part.top * share, part.width * share, part.height * share, 0, 0, width, height);
    context.restore();
  }

  #cross(context, ratio) {
    const { width, height } = this.canvas, { left, top, width: across } = this.camera.part, { x, y } = this.camera.cursor;
    const step = width / across, [column, row] = [(x + 0.5 - left) * step, (y + 0.5 - top) * step], gap = Math.max(6 * ratio, step * 0.75);
    context.lineWidth = ratio;
    for (const [colour, aside] of [["rgb(0 0 0 / 55%)", ratio], ["rgb(255 255 255 / 90%)", 0]]) { // seen on light and on dark
      context.setTransform(1, 0, 0, 1, aside, aside);
      context.strokeStyle = colour;
      context.beginPath();
      for (const [a, b] of [[0, column - gap], [column + gap, width]]) context.moveTo(a, row), context.lineTo(b, row);
      for (const [a, b] of [[0, row - gap], [row + gap, height]]) context.moveTo(column, a), context.lineTo(column, b);
      if (step >= 6 * ratio) context.rect(column - step / 2, row - step / 2, step, step);
      context.stroke();
    }
    context.resetTransform();
  }

  #down(event) {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.slipped = this.pointers.size > 1 ? Infinity : 0;
  }

  #moved(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") this.#point(event);
      return;
    }
    const [others] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
    const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
    if (others) this.#pinched(before, event, others);
    else if (this.camera.zoom > 1 && (this.slipped += Math.hypot(x, y)) > LONG_PRESS_SLIP) this.camera.moveBy(-x * this.scale, -y * this.scale);
    else if (this.camera.zoom === 1) this.#point(event);
    this.pointers.set(event.pointerId, event);
  }

  /** Two fingers: what lies between them stays between them. */
  #pinched(before, now, other) {
    const apart = (one) => Math.max(Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), 1);
    const middle = (one) => ({ clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2 });
    const [from, to] = [middle(before), middle(now)];
    this.camera.zoomBy(apart(now) / apart(before), this.place(from));
    this.camera.moveBy((from.clientX - to.clientX) * this.scale, (from.clientY - to.clientY) * this.scale);
  }

  #up(event) {
    if (this.pointers.delete(event.pointerId) && event.type === "pointerup" && this.slipped <= LONG_PRESS_SLIP) this.#point(event);
  }

  #point(event) {
    const { x, y } = this.place(event);
    this.camera.point(x, y);
  }

  #wheeled(event) {
    const closer = event.deltaY < 0, { zoom, most } = this.camera;
    if (!(this.wheel || event.ctrlKey) || (closer ? zoom >= most : zoom <= 1)) return; // the page scrolls
    event.preventDefault();
    this.camera.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), this.place(event));
  }
}

/** Keys of a pane that has the focus: arrows move the cursor (Shift: ten pixels), + and − zoom, 0 shows all. */
export function keyed(event, camera) {
  const step = event.shiftKey ? 10 : 1, moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key in moves) camera.step(...moves[event.key]);
  else if (event.key === "+" || event.key === "=") camera.zoomBy(1.5, camera.cursor ?? camera.middle);
  else if (event.key === "-" || event.key === "_") camera.zoomBy(1 / 1.5, camera.cursor ?? camera.middle);
  else if (event.key === "0") camera.fit();
  else return false;
  event.preventDefault();
  return true;
}
