// A picture's file → its pixels, upright as the browser turns it by EXIF, without colour management, as Python reads it.
// Letters: P pixels.

/** Longest side that browsers' canvases take. */
const MOST_SIDE = 16384;

/**
 * A file → {width, height, image: ImageData, notes: what was guessed or lost}.
 * longest: pixels of its longer side, beyond which it is made smaller; null: its own size.
 */
export async function readPicture(file, longest = null) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${file.name ?? "picture"}: is no picture that this browser reads; give PNG, JPEG or WebP`);
  }
  const { width, height } = sizeWithin(bitmap.width, bitmap.height, longest);
  if (Math.max(width, height) > MOST_SIDE) {
    bitmap.close();
    throw new Error(`${file.name ?? "picture"}: has a side of more than ${MOST_SIDE} pixels; choose a smaller size`);
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const notes = [];
  if (width !== bitmap.width) notes.push(`made smaller: ${bitmap.width}×${bitmap.height} to ${width}×${height}`);
  bitmap.close();
  const image = context.getImageData(0, 0, width, height);
  if (isTransparent(image.data)) notes.push("transparent in places, where its colours are a browser's approximation");
  return { width, height, image, notes };
}

/** The size of a picture whose longer side has at most so many pixels. */
export function sizeWithin(width, height, longest) {
  const scale = longest === null ? 1 : Math.min(1, longest / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

function isTransparent(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] !== 255) return true;
  return false;
}

/** RGBA bytes (P · 4) → planes (3 · P) of red, green and blue. */
export function planes(rgba) {
  const pixels = rgba.length / 4, found = new Uint8Array(3 * pixels);
  for (let p = 0; p < pixels; p++) {
    found[p] = rgba[4 * p];
    found[p + pixels] = rgba[4 * p + 1];
    found[p + 2 * pixels] = rgba[4 * p + 2];
  }
  return found;
}
