// Sizes and places: of pictures that are sent, of boxes and labels on a canvas, of points in a picture.

const MOST_LABELS = 40; // of boxes, on one picture: more cannot be read
const LEAST_SIDE = 320; // pixels of the longer side: JPEG keeps colours at half the size

/** Cells of the class map's longest side: one for two pixels looks smooth, in steps so that resizing does not flood. */
export function mapCells(pixels) {
  return Math.min(Math.max(Math.ceil(pixels / 2 / 80) * 80, 160), 640);
}

/** [width, height] of the picture to send of a video: no larger than a network of that input size can use. */
export function sentSize([width, height], [wide, high]) {
  const least = LEAST_SIDE / Math.max(width, height);
  const scale = Math.min(1, Math.max(wide / width, high / height, least));
  return [Math.max(Math.round(width * scale), 1), Math.max(Math.round(height * scale), 1)];
}

/** Width of the lines and height of the text on a canvas, in pixels. */
export function strokes(width, height) {
  const side = Math.min(width, height);
  return { line: Math.max(Math.round(side / 240), 2), text: Math.max(Math.round(side / 34), 11) };
}

/** A box in pixels of a frame ([x0, y0, x1, y1]) as one in pixels of a canvas, mirrored where the picture is. */
export function boxOnCanvas([x0, y0, x1, y1], frame, canvas, mirror) {
  const [sx, sy] = [canvas.width / frame.width, canvas.height / frame.height];
  const [left, right] = [x0 * sx, x1 * sx];
  return mirror ? [canvas.width - right, y0 * sy, canvas.width - left, y1 * sy] : [left, y0 * sy, right, y1 * sy];
}

/** [x, y, width, height] for strokeRect(), so that the outer edge of the line is the box. */
export function outline([x0, y0, x1, y1], line) {
  return [x0 + line / 2, y0 + line / 2, Math.max(x1 - x0 - line, 1), Math.max(y1 - y0 - line, 1)];
}

/**
 * Places of the labels of boxes: [x, y] for each, or null where it is left out, so that none covers another. Labels are
 * {box: [x0, y0, ...], size: [width, height]}, the most important one first. A label stands above its box; below the
 * box's upper edge where there is no room above; nowhere if both places are taken. The server does the same, see
 * perception/drawing/labels.py.
 */
export function labelPlaces(labels, canvas, most = MOST_LABELS) {
  const kept = [];
  return labels.map(({ box: [x0, y0], size: [wide, high] }) => {
    if (kept.length === most) return null;
    const x = Math.min(Math.max(x0, 0), Math.max(canvas.width - wide, 0));
    const inside = Math.max(Math.min(y0, canvas.height - high), 0);
    const above = Math.min(y0 - high, Math.max(canvas.height - high, 0));
    for (const y of y0 >= high ? [above, inside] : [inside]) {
      if (kept.some((k) => x < k.x + k.wide && k.x < x + wide && y < k.y + k.high && k.y < y + high)) continue;
      kept.push({ x, y, wide, high });
      return [x, y];
    }
    return null;
  });
}

/** A point of an element, in its pixels, as one of the picture of another size that fills it; never outside. */
export function pointInPicture([x, y], shown, picture) {
  const inside = (value, size) => Math.min(Math.max(value, 0), size - 0.01);
  return {
    x: inside(((x + 0.5) * picture.width) / shown.width, picture.width),
    y: inside(((y + 0.5) * picture.height) / shown.height, picture.height),
  };
}
