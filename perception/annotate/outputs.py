"""Outputs: files and folders, one for each kind of result."""

from __future__ import annotations

from dataclasses import dataclass, fields

STDOUT = "-"


@dataclass(frozen=True)
class Outputs:
    """Files and folders for results.

    For one source each is a file (or a folder that ends in ``/``). For several, a folder; those of `TABLES` may be one
    file for all, in which each row names its source.

    Attributes:
        video: annotated video (``.mp4``, ``.mkv``, ``.webm``, ``.mov``), or an annotated picture (``.jpg``, ``.png``,
            ``.webp``); in a folder, annotated pictures (``.jpg``) if the source is images.
        jsonl: JSON Lines, one object a frame. ``-`` is standard output.
        coco: COCO JSON of detections.
        csv: one row per detection.
        parquet: one row per detection, columnar.
        masks: folder of class-mask PNGs.
        images: folder of annotated frames.
        panoptic: folder of COCO panoptic PNGs and their JSON; wants a `perception.stages.panoptic.PanopticStage`.
        counts: CSV of the number of boxes by class, one row per frame.
        mot: MOT text of the boxes and their identities; wants a `perception.stages.track.TrackStage`.
        summary: CSV of what rules saw, by minute; wants a `perception.stages.rules.RulesStage`.
        heatmap: picture of where boxes were for how long.
        trajectories: picture of the ways that boxes have come; wants a `perception.stages.track.TrackStage`.
        events: JSON Lines of what stages noticed, such as `perception.stages.rules.RulesStage`.
        subtitles: the video as it is, with boxes and labels as subtitles (``.mkv``).
        publish: addresses that the annotated video of one source is published to, see
            `perception.publishing.address`. They may have passwords in them.
    """

    video: str | None = None
    jsonl: str | None = None
    coco: str | None = None
    csv: str | None = None
    parquet: str | None = None
    masks: str | None = None
    images: str | None = None
    panoptic: str | None = None
    counts: str | None = None
    mot: str | None = None
    summary: str | None = None
    heatmap: str | None = None
    trajectories: str | None = None
    events: str | None = None
    subtitles: str | None = None
    publish: tuple[str, ...] = ()

    def given(self) -> dict[str, str]:
        """Return the files and folders that are asked for, by kind."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "publish"}
        return {kind: path for kind, path in found.items() if path is not None}


SUFFIXES = {
    "video": ".mp4", "jsonl": ".jsonl", "coco": ".json", "csv": ".csv", "parquet": ".parquet", "counts": ".counts.csv",
    "mot": ".txt", "summary": ".summary.csv", "heatmap": ".heatmap.png", "trajectories": ".trajectories.png",
    "events": ".events.jsonl", "subtitles": ".mkv",
}  # fmt: skip
"""The ending of a file that is named after its source."""

FILES = (*SUFFIXES, "picture")
"""Outputs that are files; the others are folders."""

TABLES = ("jsonl", "csv", "parquet", "counts", "summary", "events")
"""Outputs that may be one file for several sources: their rows carry the source."""
