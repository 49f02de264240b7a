// What is seen of the picture, and where the cursor is: one for all panes. Places are in pixels of the picture.

const CLOSEST = 8; // pixels of the picture across a pane, at least
const within = (value, low, high) => Math.min(Math.max(value, low), high);

export class Camera extends EventTarget {
  constructor(width, height) {
    super();
    Object.assign(this, { width, height, zoom: 1, left: 0, top: 0, cursor: null });
  }

  get most() {
    return Math.max(1, Math.min(this.width, this.height) / CLOSEST);
  }

  /** The part that is seen. */
  get part() {
    return { left: this.left, top: this.top, width: this.width / this.zoom, height: this.height / this.zoom };
  }

  /** Zoom by a factor about a place, which stays where it is. */
  zoomBy(factor, { x, y } = this.middle) {
    const zoom = within(this.zoom * factor, 1, this.most), ratio = this.zoom / zoom;
    this.zoom = zoom;
    this.#look(x - (x - this.left) * ratio, y - (y - this.top) * ratio);
  }

  /** Move what is seen by pixels of the picture. */
  moveBy(x, y) {
    this.#look(this.left + x, this.top + y);
  }

  fit() {
    this.zoom = 1;
    this.#look(0, 0);
  }

  get middle() {
    return { x: this.left + this.width / this.zoom / 2, y: this.top + this.height / this.zoom / 2 };
  }

  /** Put the cursor on a pixel; follow: move what is seen so that it is in sight. */
  point(x, y, follow = false) {
    this.cursor = { x: within(Math.floor(x), 0, this.width - 1), y: within(Math.floor(y), 0, this.height - 1) };
    if (!follow) return this.#changed();
    const { left, top, width, height } = this.part, { x: column, y: row } = this.cursor;
    return this.#look(within(left, column + 1 - width, column), within(top, row + 1 - height, row));
  }

  /** Move the cursor by pixels; it starts in the middle. */
  step(x, y) {
    const from = this.cursor ?? this.middle;
    this.point(from.x + x, from.y + y, true);
  }

  #look(left, top) {
    const { width, height } = this.part;
    this.left = within(left, 0, this.width - width);
    this.top = within(top, 0, this.height - height);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
