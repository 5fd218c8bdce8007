"""All rows, in the order of the table."""

from __future__ import annotations

from tests.faults import (
    folders,
    full_disk,
    killed,
    killed_server,
    memory,
    network,
    raising,
    rtsp_restarts,
    wall_clock,
)
from tests.faults.row import Row

ROWS: tuple[Row, ...] = (
    Row(
        "killed",
        "SIGKILL at a random moment of an annotation with ten outputs",
        "each output plays, or reads, to within the last second; no document looks finished",
        killed.run,
        count=100,
        quick=2,
    ),
    Row(
        "full-disk",
        "a disk that is full at a random write of each of 13 outputs",
        "one line says so; what was written is kept and valid; other outputs are whole; no document looks finished",
        full_disk.run,
        count=10,
        quick=1,
    ),
    Row(
        "raising",
        "a sink, a stage or the engine raises an error of any kind at a random frame, or a sink when it is closed",
        "the run ends with one line; all outputs are good up to there; no thread is left",
        raising.run,
        count=100,
        quick=4,
    ),
    Row(
        "folders",
        "a disk that is read-only; a folder that is removed and a disk that is pulled out in the middle; 13 outputs",
        "the run ends with one line that names the output; others are good; no thread is left",
        folders.run,
        count=5,
        quick=1,
    ),
    Row(
        "memory",
        "an annotation with a random part of the memory that it takes (control group, ulimit)",
        "it is whole, or ends with one line, or is killed by the kernel and its outputs are readable; it never hangs",
        memory.run,
        count=40,
        quick=2,
    ),
    Row(
        "rtsp-restarts",
        "an RTSP server that is killed, ended or frozen, and started again, under a running `live`",
        "a picture within a minute of its start, every time; nothing grows",
        rtsp_restarts.run,
        count=100,
        quick=3,
    ),
    Row(
        "network",
        "an RTSP camera behind a wire that loses, delays and is cut (seconds under each condition)",
        "frames in order and in time; the stream goes on, or is connected anew by itself",
        network.run,
        count=20,
        quick=3,
    ),
    Row(
        "wall-clock",
        "the machine's time is set back and ahead, by seconds to decades, under a running `live`",
        "the stream goes on; recordings are as long as they took; jobs, their order and their results stay",
        wall_clock.run,
        count=16,
        quick=2,
    ),
    Row(
        "killed-server",
        "`live` is killed once or twice in the upload, the queue or the middle of a job, and started again",
        "the job is done, with whole results, or marked with the reason; nothing of it is left behind",
        killed_server.run,
        count=40,
        quick=2,
    ),
)
