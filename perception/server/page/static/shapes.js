// Lines and zones where people draw them: places on the screen, what a pointer is on, what a drag makes of a shape.
//
// Points are [x, y] in 0..1 of the upright frame, from its top left; two make a line, three or more a zone. A screen is
// {width, height, mirror} in pixels: the frame fills it from edge to edge, mirrored where the picture is.

const GRIP = 14; // pixels about a handle in which a pointer takes it: a finger's worth, as targets of 24 pixels are
const EDGE = 8; // pixels from the frame's edge in which a point snaps to it, so that nothing slips by
const BODY = 8; // pixels about a line or an edge in which a pointer takes the whole shape
const LEAST = 6; // pixels that a pointer moves before it draws or drags

/** A point of the screen as one of the frame: inside, on the edge where it is near to it, to a ten-thousandth. */
export function toFrame([px, py], { width, height, mirror }) {
  const along = (at, size) => {
    const snapped = at < EDGE ? 0 : at > size - EDGE ? size : at;
    return Math.round((1e4 * snapped) / size) / 1e4;
  };
  const x = along(px, width);
  return [mirror ? Math.round(1e4 * (1 - x)) / 1e4 : x, along(py, height)];
}

/** A point of the frame as one of the screen. */
export function toScreen([x, y], { width, height, mirror }) {
  return [(mirror ? 1 - x : x) * width, y * height];
}

/** Whether two points of the screen are apart, as by a pointer that draws and not only trembles. */
export function apart([ax, ay], [bx, by]) {
  return Math.hypot(bx - ax, by - ay) > LEAST;
}

/** Whether a point of the screen is at a handle. */
export function isAt([ax, ay], [bx, by], reach = GRIP) {
  return Math.hypot(bx - ax, by - ay) <= reach;
}

/** Middles of the edges of a zone, from each point to the next: where a drag makes a new corner. */
export function middles(points) {
  if (points.length < 3) return [];
  return points.map(([x, y], i) => {
    const [u, v] = points[(i + 1) % points.length];
    return [(x + u) / 2, (y + v) / 2];
  });
}

/**
 * What of some shapes (lists of points) a pointer is on: {shape, point}, {shape, middle} or {shape} for its body, by
 * numbers; null for nothing. Handles come before bodies, and the shape that is drawn last before the others; `first`
 * is the number of one whose handles come before all.
 */
export function gripAt(shapes, at, screen, first = -1) {
  const order = shapes.map((_, i) => i).reverse();
  if (shapes[first]) order.unshift(first);
  const near = (points) => points.findIndex((point) => isAt(toScreen(point, screen), at));
  for (const shape of order) {
    const point = near(shapes[shape]);
    if (point >= 0) return { shape, point };
  }
  for (const shape of order) {
    const middle = near(middles(shapes[shape]));
    if (middle >= 0) return { shape, middle };
  }
  const shape = order.find((i) => onBody(shapes[i].map((point) => toScreen(point, screen)), at));
  return shape === undefined ? null : { shape };
}

/** Whether a point is on a line, or in or at a polygon; all in pixels. */
function onBody(points, at) {
  const edges = points.length > 2 ? points.map((p, i) => [p, points[(i + 1) % points.length]]) : [points];
  return edges.some(([a, b]) => distance(a, b, at) <= BODY) || (points.length > 2 && isInside(points, at));
}

/** Distance of a point from a segment. */
export function distance([ax, ay], [bx, by], [x, y]) {
  const [dx, dy] = [bx - ax, by - ay];
  const square = dx * dx + dy * dy;
  const part = square ? Math.min(Math.max(((x - ax) * dx + (y - ay) * dy) / square, 0), 1) : 0;
  return Math.hypot(x - ax - part * dx, y - ay - part * dy);
}

/** Whether a point is in a polygon: a ray to the left meets an odd number of its edges. */
export function isInside(points, [x, y]) {
  let odd = false;
  points.forEach(([ax, ay], i) => {
    const [bx, by] = points[(i + 1) % points.length];
    if (ay > y !== by > y && x > ax + ((y - ay) / (by - ay)) * (bx - ax)) odd = !odd;
  });
  return odd;
}

/** The points of a shape after a drag of a grip of it, from one point of the screen to another. */
export function dragged(points, { point, middle }, from, to, screen) {
  const place = toFrame(to, screen);
  if (point !== undefined) return points.map((p, i) => (i === point ? place : p));
  if (middle !== undefined) return [...points.slice(0, middle + 1), place, ...points.slice(middle + 1)];
  const way = (to[0] - from[0]) / screen.width;
  return shifted(points, screen.mirror ? -way : way, (to[1] - from[1]) / screen.height);
}

/** A shape that is moved as a whole, as far as it stays in the frame. */
export function shifted(points, dx, dy) {
  const within = (by, values) => Math.min(Math.max(by, -Math.min(...values)), 1 - Math.max(...values));
  const [mx, my] = [0, 1].map((axis) => within([dx, dy][axis], points.map((point) => point[axis])));
  return points.map(([x, y]) => [Math.round(1e4 * (x + mx)) / 1e4, Math.round(1e4 * (y + my)) / 1e4]);
}

/** From the middle of a line, in pixels of the screen, to the side of its first direction: left as one walks along it. */
export function tick([a, b], screen, length) {
  const flat = { ...screen, mirror: false };
  const [[ax, ay], [bx, by]] = [toScreen(a, flat), toScreen(b, flat)];
  const way = Math.max(Math.hypot(bx - ax, by - ay), 1);
  const [mx, my] = [(ax + bx) / 2, (ay + by) / 2];
  const end = [mx + (length * (by - ay)) / way, my - (length * (bx - ax)) / way];
  const shown = ([x, y]) => [screen.mirror ? screen.width - x : x, y];
  return [shown([mx, my]), shown(end)];
}
