// Sizes and places: of pictures that are sent, of boxes and labels on a canvas, of points in a picture.

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

/** [x, y] of a box's label of that size: above the box, inside it where there is no room above, always on the canvas. */
export function labelPlace([x0, y0], [wide, high], canvasWidth) {
  return [Math.min(Math.max(x0, 0), Math.max(canvasWidth - wide, 0)), y0 >= high ? y0 - high : Math.max(y0, 0)];
}

/** A point of an element, in its pixels, as one of the picture of another size that fills it; never outside. */
export function pointInPicture([x, y], shown, picture) {
  const inside = (value, size) => Math.min(Math.max(value, 0), size - 0.01);
  return {
    x: inside(((x + 0.5) * picture.width) / shown.width, picture.width),
    y: inside(((y + 0.5) * picture.height) / shown.height, picture.height),
  };
}
