// The binary result message of /v1/webcam, see perception/server/viewers/messages.py.

const HEAD_BYTES = 52;
const STAGES = ["decode", "wait", "resize", "infer", "postprocess", "server"];

/** Read a message. Boxes are xyxy in pixels of the frame that was sent. Throws on anything that is no such message. */
export function unpack(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < HEAD_BYTES || view.getUint32(0, false) !== 0x50435231) throw new Error("not a result message");
  const u16 = (at) => view.getUint16(at, true);
  const [boxes, classes, labels, tracked] = [u16(16), u16(18), u16(20), u16(22)];
  const timings = {};
  STAGES.forEach((stage, i) => (timings[stage] = view.getFloat32(28 + 4 * i, true)));
  let at = HEAD_BYTES;
  const take = (Kind, count) => {
    const part = new Kind(buffer, at, count);
    at += part.byteLength;
    return part;
  };
  const result = {
    number: view.getUint32(4, true),
    width: u16(8),
    height: u16(10),
    mapWidth: u16(12),
    mapHeight: u16(14),
    timings,
    boxes: take(Float32Array, 4 * boxes),
    scores: take(Float32Array, boxes),
    classIds: take(Int32Array, boxes),
    trackIds: take(Uint32Array, tracked),
    shares: take(Float32Array, classes),
    labelIds: take(Int32Array, labels),
    labelScores: take(Float32Array, labels),
    runs: take(Uint8Array, view.getUint32(24, true)),
  };
  if (at !== buffer.byteLength) throw new Error("not a result message");
  return result;
}

/**
 * Paint the runs of a class map: pixels (Uint32Array of mapWidth * mapHeight) get the colour of their class.
 * Colours are one Uint32 for each class id, in the byte order of ImageData.
 */
export function paintRuns(runs, colors, pixels) {
  let done = 0;
  for (let i = 0; i < runs.length; ) {
    const color = colors[runs[i++]];
    let length = 0;
    let shift = 0;
    let byte;
    do {
      if (i === runs.length || shift > 21) throw new Error("the class map is damaged"); // no map has 2**28 cells
      byte = runs[i++];
      length |= (byte & 127) << shift;
      shift += 7;
    } while (byte > 127);
    if (length === 0 || length > pixels.length - done) throw new Error("the class map is damaged");
    pixels.fill(color, done, (done += length));
  }
  if (done !== pixels.length) throw new Error("the class map is cut short");
}
