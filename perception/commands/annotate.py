"""The command ``perception annotate``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.boxes import ClassAgnostic, Classes, Iou, MaxDetections, Nms, Score
from perception.commands.drawing import Hide, Opacity, ShowFps, View
from perception.commands.inputs import (
    Duration,
    Every,
    Exclude,
    FilesFrom,
    Include,
    MaxFrames,
    MaxLoss,
    Recursive,
    Start,
    Timeout,
    frames_to_see,
    listed,
    root_of,
)
from perception.commands.options import (
    GENERAL,
    Card,
    Config,
    Decoder,
    Device,
    Engine,
    Json,
    JsonFile,
    Model,
    Overwrite,
    PrecisionOption,
    Size,
    Smooth,
    Stages,
    Things,
    Threads,
    Track,
    Unknown,
)
from perception.commands.outputs import (
    ClipAfter,
    ClipBefore,
    Clips,
    ClipSound,
    Cluster,
    Coco,
    Codec,
    Counts,
    Crf,
    Csv,
    Events,
    EventTargets,
    HeatMap,
    Images,
    Jobs,
    Jsonl,
    Masks,
    Mot,
    Open,
    Output,
    Overlay,
    Panoptic,
    Parquet,
    Preset,
    Resume,
    Rle,
    RulesFile,
    SkipExisting,
    Summary,
    Trajectories,
    beside,
    check_batch,
    check_rules,
    clip_settings,
    outputs_of,
    targets_of,
)
from perception.common.phases import phase
from perception.errors import UsageError
from perception.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from perception.annotate import Result


def annotate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Video, image, folder, glob, camera (0), rtsp:// or http:// URL, '-' (a pipe), 'synthetic:'.",
        ),
    ],
    output: Output = None,
    jsonl: Jsonl = None,
    rle: Rle = False,
    coco: Coco = None,
    csv: Csv = None,
    parquet: Parquet = None,
    masks: Masks = None,
    images: Images = None,
    panoptic: Panoptic = None,
    counts: Counts = None,
    mot: Mot = None,
    summary: Summary = None,
    heatmap: HeatMap = None,
    trajectories: Trajectories = None,
    events: Events = None,
    event_targets: EventTargets = None,
    clips: Clips = None,
    clip_before: ClipBefore = 5.0,
    clip_after: ClipAfter = 5.0,
    clip_sound: ClipSound = False,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    jobs: Jobs = None,
    resume: Resume = False,
    cluster: Cluster = None,
    codec: Codec = None,
    crf: Crf = None,
    preset: Preset = None,
    model: Model = DEFAULT_MODEL,
    card: Card = None,
    engine: Engine = "auto",
    precision: PrecisionOption = "auto",
    device: Device = "CPU",
    threads: Threads = None,
    size: Size = None,
    score: Score = None,
    iou: Iou = None,
    unknown: Unknown = 0.0,
    max_detections: MaxDetections = None,
    nms: Nms = "nms",
    class_agnostic: ClassAgnostic = None,
    classes: Classes = None,
    things: Things = None,
    track: Track = False,
    smooth: Smooth = False,
    rules: RulesFile = None,
    stage: Stages = None,
    recursive: Recursive = False,
    include: Include = None,
    exclude: Exclude = None,
    files_from: FilesFrom = None,
    start: Start = 0.0,
    duration: Duration = None,
    every: Every = "1",
    max_loss: MaxLoss = None,
    max_frames: MaxFrames = None,
    timeout: Timeout = 10.0,
    decoder: Decoder = "auto",
    overlay: Overlay = "picture",
    view: View = "boxes",
    opacity: Opacity = 0.5,
    hide: Hide = None,
    show_fps: ShowFps = False,
    open_it: Open = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print how long each step took.", rich_help_panel=GENERAL)
    ] = False,
    as_json: Json = False,
    json_file: JsonFile = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=GENERAL)] = False,
    config: Config = None,
) -> None:  # fmt: skip
    """Annotate videos, images or streams; write video, masks and data.

    Where no output is named, what is made of street.mp4 is street.annotated.mp4 beside it, and of photo.jpg
    photo.annotated.jpg.

    [bold]Examples[/bold]

      perception annotate street.mp4 --open

      perception annotate street.mp4 -o annotated.mp4 --jsonl street.jsonl

      perception annotate photo.jpg -o annotated.jpg

      perception annotate videos/ -o out/ --counts counts.csv --skip-existing

      perception annotate videos/ -o out/ --recursive --exclude 'raw*' --jobs 4 --resume

      find . -name '*.mp4' -print0 | perception annotate --files-from - -o out/ --resume

      perception annotate videos/ -o out/ --cluster ray://head:10001 --resume

      perception annotate 0 -o webcam.mp4 --duration 10

      perception annotate rtsp://camera/stream -o rtsp://localhost:8554/annotated -o recorded.mp4

      perception annotate street.mp4 -o instances.mp4 --view panoptic --panoptic segments/

      perception annotate street.mp4 --jsonl street.jsonl --every auto --max-loss 0.02

      perception annotate street.mp4 -o tracked.mp4 --track --mot tracks.txt

      perception annotate street.mp4 -o street.mkv --overlay subtitles

      perception annotate street.mp4 -o counted.mp4 --rules rules.yaml --summary counted.csv --events events.jsonl

      perception annotate street.mp4 --rules rules.yaml --events events.jsonl --clips clips/

      perception annotate street.mp4 -o cars.mp4 --stage my_stages:CountCars

      ffmpeg -i in.mp4 -f matroska - | perception annotate - -o out.mp4
    """
    with phase("imports"):
        from perception.annotate import Annotation, Outputs, RunSummary, annotate_all
        from perception.commands.reporter import Reporter
        from perception.commands.terminal import write_json
        from perception.commands.viewer import check_viewable, open_made
        from perception.common.settings import names
        from perception.common.settings import size as parse_size
        from perception.common.settings import things as parse_things
        from perception.postprocess.post_processing import DetectionOptions
        from perception.sources.choice import Choice
        from perception.stages.factories import find_stage

    for name in stage or ():
        find_stage(name)  # a wrong one is told first
    hidden = names(hide, ("masks", "boxes", "trails", "rules", "labels", "legend")) or []
    video = {k: v for k, v in {"codec": codec, "crf": crf, "preset": preset}.items() if v is not None}
    batched = jobs is not None or resume or cluster is not None
    data = (jsonl, coco, csv, parquet, masks, images, panoptic, counts, mot, summary, heatmap, trajectories, events)
    unnamed = None if output or any(data) or files_from or batched else beside(sources, overlay)
    output = output or ([] if unnamed is None else [unnamed])
    outputs = Outputs(
        jsonl=jsonl, coco=coco, csv=csv, parquet=parquet, masks=masks, images=images, panoptic=panoptic, counts=counts,
        mot=mot, summary=summary, heatmap=heatmap, trajectories=trajectories, events=events,
        **outputs_of(output, overlay, altered=view != "boxes" or bool(hidden or video)),
    )  # fmt: skip
    if not outputs.given() and not outputs.publish:
        kinds = ", --".join(k for k in Outputs.__dataclass_fields__ if k not in ("video", "subtitles", "publish"))
        raise UsageError(f"nothing to write: give -o OUT, or one of --{kinds}")
    if open_it:
        check_viewable(outputs, batched)
    several = listed(files_from)
    named, root = [*(source for source in sources if source or files_from is None), *several], root_of(several)
    if as_json and "-" in outputs.given().values():
        raise UsageError("--json prints the summary on standard output; give the other output a file name")
    check_rules(rules, summary, (events, event_targets, clips) != (None, None, None) and not stage)
    kept = clip_settings(clips, clip_before, clip_after, clip_sound)
    targets = targets_of(event_targets)
    step, loss = frames_to_see(every, max_loss)
    choice, reporter = Choice(include or (), exclude or ()), Reporter(quiet=quiet, stats=stats)
    annotation = Annotation(
        model=model, card=card, engine=engine, precision=precision, device=device, threads=threads,
        size=parse_size(size), stages=tuple(stage or ()), smooth=smooth, max_loss=loss, rules=rules,
        track=track or mot is not None or trajectories is not None, panoptic=panoptic is not None,
        things=parse_things(things), view=view, opacity=opacity, hidden=tuple(hidden), show_fps=show_fps,
        options=DetectionOptions(
            score_threshold=score, iou_threshold=iou, max_detections=max_detections, nms=nms,
            class_agnostic=class_agnostic, classes=names(classes), unknown=unknown,
        ),
        source_options={
            "start": start, "duration": duration, "every": step, "max_frames": max_frames,
            "timeout": timeout, "decoder": decoder,
        },
        sink_options={"video": video, "publish": video, "jsonl": {"masks": rle}},
    )  # fmt: skip
    if unnamed is not None:
        reporter.say(f"no output was named: writing {unnamed}")
    if batched:
        check_batch(skip_existing, reacts=kept is not None or targets is not None)
        from perception.batch import Batch

        batch = Batch(
            named, annotation, outputs, jobs=jobs, cluster=cluster, resume=resume, overwrite=overwrite,
            recursive=recursive, choice=choice, root=root,
        )  # fmt: skip
        ended = reporter.run_batch(batch)
    else:
        results: list[Result] = []
        with ExitStack() as ending, annotation.opened() as (loaded, annotator, stages):
            delivery = None if targets is None else targets.delivery()
            if delivery is not None and targets is not None:
                ending.callback(delivery.close, targets.drain_s)
            for result in annotate_all(
                named, loaded, outputs, annotator=annotator, stages=stages, overwrite=overwrite, recursive=recursive,
                choice=choice, root=root, skip_existing=skip_existing, delivery=delivery, clips=kept, max_loss=loss,
                started=reporter.started, source_options={**annotation.source_options},
                sink_options={kind: dict(options) for kind, options in annotation.sink_options.items()},
            ):  # fmt: skip
                reporter.finished(result)
                results.append(result)
        ended = RunSummary.of(results)
    reporter.ended(ended)
    write_json(ended.to_dict(), as_json, json_file)
    if open_it and not ended.interrupted:
        open_made(ended.results)
    raise typer.Exit(ended.exit_code)
