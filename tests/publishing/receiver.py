"""A program that receives one published stream by FFmpeg: ``receiver.py URL [OPTION=VALUE ...]``.

It prints ``listening``, then a line of JSON for each frame: the number stamped on it, its time in seconds (null where
FFmpeg does not know it yet), whether it is a key frame, and the checksum of its packet. It ends where the stream does.
"""

import json
import sys
import zlib

import av

from tests.media import read_stamp


def main() -> None:
    url, *options = sys.argv[1:]
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    container = av.open(url, options=dict(option.split("=", 1) for option in options))
    stream = container.streams.video[0]
    stream.codec_context.flags |= 0x80000  # low delay
    stream.codec_context.thread_count = 1
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                said = {
                    "number": read_stamp(frame.to_ndarray(format="bgr24")),
                    "time": frame.time,
                    "key": bool(packet.is_keyframe),
                    "crc": zlib.crc32(bytes(packet)),
                }
                sys.stdout.write(json.dumps(said) + "\n")
                sys.stdout.flush()
    except OSError:  # whoever published is gone
        pass


if __name__ == "__main__":
    main()
