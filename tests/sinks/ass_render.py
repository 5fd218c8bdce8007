"""Renders the subtitles of a Matroska file of Motion JPEG over its video, by libass: ``ass_render.py IN.mkv OUT.bgr``.

Run by the system's Python, see `tests/server/rtsp_server.py`; the output is the raw BGR pictures, one after the other.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402


def main() -> None:
    source, target = sys.argv[1:]
    Gst.init(None)
    missing = [name for name in ("assrender", "matroskademux", "jpegdec") if Gst.ElementFactory.find(name) is None]
    if missing:
        sys.exit(f"no {', '.join(missing)}")
    pipeline = Gst.parse_launch(
        f'filesrc location="{source}" ! matroskademux name=demux '
        "demux.video_0 ! queue ! jpegdec ! videoconvert ! video/x-raw,format=BGRx ! assrender name=render "
        f'! videoconvert ! video/x-raw,format=BGR ! filesink location="{target}" '
        "demux.subtitle_0 ! queue ! render.text_sink"
    )
    pipeline.set_state(Gst.State.PLAYING)
    ended = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    if ended is None or ended.type != Gst.MessageType.EOS:
        sys.exit("it did not end" if ended is None else str(ended.parse_error()))


if __name__ == "__main__":
    main()
