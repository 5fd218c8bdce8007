"""Options of ``perception annotate`` for what is written beside the video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perception.commands.options import DRAWING, MODEL, OUTPUT
from perception.errors import UsageError

if TYPE_CHECKING:
    from perception.events.settings import EventSettings
    from perception.footage.settings import ClipSettings

NOT_WRITTEN = "not written"

Output = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--output", show_default="beside the source, where no output at all is named", rich_help_panel=OUTPUT,
        help="Annotated video or photo, or a folder; or where to publish it: rtsp://, rtmp://, udp://, hls:folder/, "
        "any number of these (docs/publishing.md).",
    ),
]  # fmt: skip
Open = Annotated[
    bool,
    typer.Option(
        "--open", rich_help_panel=OUTPUT,
        help="Open what was made in the desktop's viewer; of several sources, its folder.",
    ),
]  # fmt: skip
Overlay = Annotated[
    Literal["picture", "subtitles"],
    typer.Option(
        help="What -o gets: the picture, drawn upon and encoded; or the video as it is, with subtitles (.mkv).",
        rich_help_panel=DRAWING,
    ),
]
Jsonl = Annotated[
    str | None,
    typer.Option(
        help="JSON Lines, one object per frame ('-': standard output).", show_default=NOT_WRITTEN,
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Rle = Annotated[
    bool, typer.Option(help="Include masks in the JSON Lines, as COCO RLE.", rich_help_panel=OUTPUT)
]  # fmt: skip
Codec = Annotated[
    str | None,
    typer.Option(
        help="Video encoder: h264, hevc, vp9, av1, ..., or auto: an NVIDIA GPU's, if any.",
        show_default="h264; vp9 for .webm", rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Preset = Annotated[
    str | None,
    typer.Option(
        help="Speed of the encoder.", show_default="by codec: superfast for h264, 7 for vp9", rich_help_panel=OUTPUT
    ),
]  # fmt: skip

Coco = Annotated[
    str | None, typer.Option(help="COCO JSON of the boxes.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT)
]
Csv = Annotated[
    str | None, typer.Option(help="CSV, one row per box.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT)
]
Parquet = Annotated[
    str | None, typer.Option(help="Parquet, one row per box.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT)
]
Masks = Annotated[
    str | None, typer.Option(help="Folder for class masks (PNG).", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT)
]
Images = Annotated[
    str | None, typer.Option(help="Folder for annotated frames.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT)
]
Panoptic = Annotated[
    str | None,
    typer.Option(help="Folder for COCO panoptic PNGs and JSON.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT),
]
Counts = Annotated[
    str | None,
    typer.Option(help="CSV of boxes by class, one row per frame.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT),
]
Mot = Annotated[
    str | None,
    typer.Option(
        help="MOT text of boxes and identities; implies --track.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT
    ),
]
Summary = Annotated[
    str | None,
    typer.Option(
        help="CSV of what --rules saw, by minute, class and direction.", show_default=NOT_WRITTEN,
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
HeatMap = Annotated[
    str | None,
    typer.Option(
        help="Picture of where boxes were, and for how long.", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT
    ),
]
Trajectories = Annotated[
    str | None,
    typer.Option(
        help="Picture of the ways that boxes have come; implies --track.", show_default=NOT_WRITTEN,
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
RulesFile = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of lines, zones and conditions (docs/rules.md); implies --track.", show_default="none",
        rich_help_panel=MODEL,
    ),
]  # fmt: skip
Events = Annotated[
    str | None,
    typer.Option(help="JSON Lines of events ('-': standard output).", show_default=NOT_WRITTEN, rich_help_panel=OUTPUT),
]
Clips = Annotated[
    Path | None,
    typer.Option(
        help="Folder for a clip of the source, as it came, and a picture of each event.", show_default=NOT_WRITTEN,
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
ClipBefore = Annotated[
    float, typer.Option(min=0, max=120, help="Seconds of a clip before its event.", rich_help_panel=OUTPUT)
]
ClipAfter = Annotated[
    float, typer.Option(min=0, max=600, help="Seconds of a clip after its event.", rich_help_panel=OUTPUT)
]
ClipSound = Annotated[
    bool, typer.Option("--clip-sound", help="Keep the source's sound in clips, too.", rich_help_panel=OUTPUT)
]
EventTargets = Annotated[
    Path | None,
    typer.Option(
        help="YAML file that says where events are sent: webhooks, MQTT; see docs/events.md.",
        show_default="not sent", rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing", rich_help_panel=OUTPUT,
        help="Skip sources whose outputs are all there; with --overwrite, redo those of which some are.",
    ),
]  # fmt: skip
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", min=1, rich_help_panel=OUTPUT, show_default="no batch",
        help="Annotate so many files at once, as a batch: each in a process of its own; see docs/batches.md.",
    ),
]  # fmt: skip
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", rich_help_panel=OUTPUT, show_default="none",
        help="As a batch on a Ray cluster: ray://HEAD:10001, or on one of its machines HEAD:6379 or auto; see "
        "docs/batches.md.",
    ),
]  # fmt: skip
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", rich_help_panel=OUTPUT,
        help="As a batch: do what is not done yet, or has changed; all of it the first time.",
    ),
]  # fmt: skip
Crf = Annotated[
    int | None,
    typer.Option(
        help="Quality of the video; lower is better.", show_default="by codec: 23 for h264, 34 for vp9",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip


def beside(sources: list[str], overlay: Literal["picture", "subtitles"]) -> str | None:
    """Return where a single file of this machine is annotated to where nothing is named: ``street.annotated.mp4``.

    Args:
        sources: as they are named.
        overlay: see `outputs_of`.

    Returns:
        The file beside it; None where there are several sources, or one of another kind.
    """
    from perception.errors import SourceError
    from perception.sinks import PICTURES
    from perception.sources.media import is_glob
    from perception.sources.uri import is_folder, kind_of

    if len(sources) != 1:
        return None
    try:
        kind = kind_of(sources[0])
    except SourceError:  # told when it is opened
        return None
    path = Path(sources[0])
    if kind not in ("file", "images") or is_folder(path) or is_glob(sources[0]):
        return None
    suffix = ".mp4" if overlay == "picture" else ".mkv"
    if kind == "images":
        suffix = path.suffix if path.suffix[1:].lower() in PICTURES else ".jpg"
    return str(path.with_name(f"{path.stem}.annotated{suffix}"))


def outputs_of(outputs: list[str] | None, overlay: Literal["picture", "subtitles"], altered: bool) -> dict[str, Any]:
    """Return the outputs that the values of ``-o`` name: a file or folder, and addresses to publish to.

    Args:
        outputs: the values.
        overlay: what the file or folder gets.
        altered: whether options for drawing or encoding are given.

    Raises:
        UsageError: there are several files or folders, or the options do not go together.
    """
    from perception.publishing.address import is_publish_address

    written = [output for output in outputs or () if not is_publish_address(output)]
    if len(written) > 1:
        raise UsageError("-o takes one file or folder, and any number of addresses to publish to", written[1])
    published = tuple(output for output in outputs or () if is_publish_address(output))
    if overlay == "subtitles" and not written:
        raise UsageError("boxes as subtitles are written into a file: give -o OUT.mkv")
    if overlay == "subtitles" and altered:
        raise UsageError("subtitles are boxes and labels over the video as it is; leave out what draws or encodes it")
    kind = "video" if overlay == "picture" else "subtitles"
    return {kind: written[0] if written else None, "publish": published}


def check_batch(skip_existing: bool, reacts: bool) -> None:
    """Check that a batch is asked for nothing that it does not do.

    Args:
        skip_existing: the option of that name.
        reacts: whether events are to be sent, or clips of them kept.

    Raises:
        UsageError: it is.
    """
    if skip_existing:
        raise UsageError(
            "--resume, --jobs and --cluster know by their manifest what is done; leave out --skip-existing"
        )
    if reacts:
        raise UsageError(
            "a batch sends no events and keeps no clips; leave out --jobs, --resume and --cluster, or these"
        )


def check_rules(rules: Path | None, summary: str | None, of_events: bool) -> None:
    """Check a file of rules, which is opened again later, or that nothing is asked for that needs one.

    Args:
        rules: the file.
        summary: where what rules saw is written.
        of_events: events are asked for, and no stage is named that could make them.

    Raises:
        UsageError: a rule is wrong, or there is no file and one is needed.
    """
    if rules is not None:
        from perception.rules.settings import read_rules

        read_rules(rules)
    elif summary is not None:
        raise UsageError("--summary says what rules saw: give --rules FILE")
    elif of_events:
        raise UsageError("events are made by rules: give --rules FILE")


def targets_of(path: Path | None) -> EventSettings | None:
    """Read where events are sent to, of ``--event-targets``; None where they are sent nowhere."""
    if path is None:
        return None
    from perception.events.settings import read_event_settings

    return read_event_settings(path)


def clip_settings(folder: Path | None, before: float, after: float, sound: bool) -> ClipSettings | None:
    """Make the settings of ``--clips`` and what belongs to it; None where there are to be none."""
    if folder is None:
        return None
    from perception.footage.settings import ClipSettings

    longest = max(120.0, before + after)
    return ClipSettings(folder=folder, before_s=before, after_s=after, longest_s=longest, sound=sound)
