// Colours of classes, as CSS and as pixels.

/** Black or white, whichever reads better on an RGB colour (ITU-R BT.709 luminance). */
export function textColor([r, g, b]) {
  const linear = (c) => (c / 255) ** 2.2;
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) > 0.18 ? "#000" : "#fff";
}

export const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/** One Uint32 for each class id, in the byte order of ImageData: opaque where a class is shown and clear elsewhere. */
export function classColors(model, hidden) {
  const colors = new Uint32Array(256);
  model.segmentation.forEach(({ name, color: [r, g, b] }, i) => {
    if (!hidden.has(name) && !model.ignored.includes(i)) colors[i] = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
  return colors;
}
