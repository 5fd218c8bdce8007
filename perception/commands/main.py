"""The command line: one function per command, no logic of its own.

Results go to standard output, everything about them (progress, warnings, summaries, errors) to standard error.
Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from perception.commands.evaluate import data as data_commands
from perception.commands.evaluate import evaluation
from perception.commands.explain import explain_model
from perception.commands.live import live
from perception.commands.options import (
    DRAWING,
    GENERAL,
    INPUT,
    MODEL,
    OUTPUT,
    Card,
    Config,
    Decoder,
    Engine,
    Json,
    Model,
    Precision,
    Size,
    Threads,
)
from perception.commands.quantize import quantize_model
from perception.commands.summary import summary
from perception.commands.train import export, train
from perception.errors import PerceptionError

app = typer.Typer(
    name="perception",
    help="Streaming video perception: boxes and class masks of live and recorded video, on a GPU or a plain CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(evaluation, name="eval")
app.add_typer(data_commands, name="data")


@app.command()
def annotate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Video, image, folder, glob, camera (0), rtsp:// or http:// URL, '-' (a pipe), 'synthetic:'.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Annotated video, or a folder.", rich_help_panel=OUTPUT)
    ] = None,
    jsonl: Annotated[
        str | None, typer.Option(help="JSON Lines, one object a frame ('-': stdout).", rich_help_panel=OUTPUT)
    ] = None,
    rle: Annotated[
        bool, typer.Option(help="Put masks into the JSON Lines, as COCO RLE.", rich_help_panel=OUTPUT)
    ] = False,
    coco: Annotated[str | None, typer.Option(help="COCO JSON of the boxes.", rich_help_panel=OUTPUT)] = None,
    csv: Annotated[str | None, typer.Option(help="CSV, one row a box.", rich_help_panel=OUTPUT)] = None,
    parquet: Annotated[str | None, typer.Option(help="Parquet, one row a box.", rich_help_panel=OUTPUT)] = None,
    masks: Annotated[str | None, typer.Option(help="Folder for class-mask PNGs.", rich_help_panel=OUTPUT)] = None,
    images: Annotated[str | None, typer.Option(help="Folder for annotated frames.", rich_help_panel=OUTPUT)] = None,
    panoptic: Annotated[
        str | None, typer.Option(help="Folder for COCO panoptic PNGs and JSON.", rich_help_panel=OUTPUT)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=OUTPUT)
    ] = False,
    codec: Annotated[
        str | None, typer.Option(help="Video encoder: h264, hevc, vp9, av1, ...", rich_help_panel=OUTPUT)
    ] = None,
    crf: Annotated[
        int | None, typer.Option(help="Quality of the video, lower is better.", rich_help_panel=OUTPUT)
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Speed of the encoder.", rich_help_panel=OUTPUT)] = None,
    model: Model = None,
    card: Card = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    size: Size = None,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score of a box.", rich_help_panel=MODEL)
    ] = None,
    iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="Boxes that overlap more are one.", rich_help_panel=MODEL)
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Most boxes a frame.", rich_help_panel=MODEL)
    ] = None,
    nms: Annotated[
        Literal["nms", "soft-linear", "soft-gaussian"],
        typer.Option(help="How overlapping boxes are suppressed.", rich_help_panel=MODEL),
    ] = "nms",
    class_agnostic: Annotated[
        bool | None, typer.Option(help="Suppress boxes across classes too.", rich_help_panel=MODEL)
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these classes, comma-separated.", rich_help_panel=MODEL)
    ] = None,
    things: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS=BOX+BOX,...", help="For panoptic: which boxes show which pixels.", rich_help_panel=MODEL
        ),
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Begin at this second.", rich_help_panel=INPUT)] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Read this many seconds.", rich_help_panel=INPUT)
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Read each N-th frame.", rich_help_panel=INPUT)] = 1,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after N frames.", rich_help_panel=INPUT)] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for a stream.", rich_help_panel=INPUT)
    ] = 10.0,
    decoder: Decoder = "auto",
    view: Annotated[
        Literal["boxes", "panoptic"],
        typer.Option(help="Things as boxes, or as outlines of their pixels.", rich_help_panel=DRAWING),
    ] = "boxes",
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the class colours.", rich_help_panel=DRAWING)] = 0.5,
    hide: Annotated[
        str | None,
        typer.Option(help="Not drawn: masks, boxes, labels, legend; comma-separated.", rich_help_panel=DRAWING),
    ] = None,
    show_fps: Annotated[
        bool, typer.Option("--show-fps", help="Print the speed onto the picture.", rich_help_panel=DRAWING)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.", rich_help_panel=GENERAL)] = False,
    config: Config = None,
) -> None:
    """Annotate videos, images or streams into video and data.

    [bold]Examples[/bold]

      perception annotate street.mp4 -o annotated.mp4 --jsonl street.jsonl

      perception annotate videos/ -o out/ --masks masks/

      perception annotate 0 -o webcam.mp4 --duration 10

      perception annotate street.mp4 -o instances.mp4 --view panoptic --panoptic segments/

      ffmpeg -i in.mp4 -f matroska - | perception annotate - -o out.mp4
    """
    from perception.annotate import Outputs, annotate_all
    from perception.commands.terminal import Reporter, exit_code
    from perception.common.settings import names
    from perception.common.settings import size as parse_size
    from perception.common.settings import things as parse_things
    from perception.drawing.annotator import Annotator
    from perception.model import load_model
    from perception.stages.panoptic import PanopticStage
    from perception.weights.library import DEFAULT_MODEL

    wanted = names(classes)
    hidden = names(hide, ("masks", "boxes", "labels", "legend")) or []
    told_apart = parse_things(things)
    video = {k: v for k, v in {"codec": codec, "crf": crf, "preset": preset}.items() if v is not None}
    outputs = Outputs(output, jsonl, coco, csv, parquet, masks, images, panoptic)
    reporter = Reporter(quiet=quiet)
    with load_model(
        model or DEFAULT_MODEL, card=card, engine=engine, precision=precision, threads=threads, mode="throughput",
        score_threshold=score, iou_threshold=iou, max_detections=max_detections, nms=nms,
        class_agnostic=class_agnostic, classes=wanted, size=parse_size(size),
    ) as loaded:  # fmt: skip
        annotator = Annotator(
            loaded.card, opacity=opacity, fps=show_fps, classes=wanted, view=view, **dict.fromkeys(hidden, False)
        )
        stages = [PanopticStage(loaded.card, told_apart)] if panoptic or view == "panoptic" else []
        results = []
        for result in annotate_all(
            sources, loaded, outputs, annotator=annotator, stages=stages, overwrite=overwrite, started=reporter.started,
            source_options={
                "start": start, "duration": duration, "every": every, "max_frames": max_frames, "timeout": timeout,
                "decoder": decoder,
            },
            sink_options={"video": video, "jsonl": {"masks": rle}},
        ):  # fmt: skip
            reporter.finished(result)
            results.append(result)
    raise typer.Exit(exit_code(results))


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for demo.mp4, demo.jsonl and demo.png.")
    ] = Path(),
    clip: Annotated[str, typer.Option(help="auto, dashcam, street or synthetic.")] = "auto",
    model: Model = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
) -> None:
    """Annotate a street clip: writes demo.mp4, demo.jsonl and a contact sheet, demo.png."""
    from perception.commands.demo import run_demo
    from perception.commands.terminal import Reporter, exit_code

    reporter = Reporter()
    result = run_demo(output, clip=clip, model=model, engine=engine, precision=precision, reporter=reporter)
    raise typer.Exit(exit_code([result]))


app.command("live")(live)


@app.command()
def models(as_json: Json = None) -> None:
    """List the models that can be used by name."""
    from perception.commands.terminal import print_models
    from perception.weights.library import list_models

    print_models(list_models(), as_json)


@app.command()
def doctor(as_json: Json = None) -> None:
    """Print what this machine can run, what is missing, and how to get it."""
    from perception.commands.terminal import print_checks
    from perception.diagnostics.doctor import diagnose

    print_checks(diagnose(), as_json)


@app.command()
def build(
    model: Annotated[str, typer.Argument(help="Name or .onnx file of the model.")],
    card: Card = None,
    flavour: Annotated[
        Literal["auto", "tensorrt", "rtx"], typer.Option(help="TensorRT, or TensorRT for RTX (desktop GPUs).")
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"], typer.Option(help="What convolutions and matrix products compute in.")
    ] = "fp16",
    batch: Annotated[int, typer.Option(min=1, max=8, help="Most frames a call.")] = 1,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the input, or dynamic.")] = None,
    compute_capability: Annotated[
        str | None, typer.Option(help="GPUs to build for, without one at hand: 75,80,86,89,120 (rtx only).")
    ] = None,
) -> None:
    """Build a TensorRT engine and keep it, so that the first frame does not wait for it.

    [bold]Examples[/bold]

      perception build street

      perception build street --flavour rtx --precision fp16 --compute-capability 75,80,86,89,120
    """
    from perception.commands.terminal import print_built, working
    from perception.common.settings import names
    from perception.engines.trt.build import build_model
    from perception.weights.library import find_with_card

    with working(model, "building an engine") as progress:
        built = build_model(
            *find_with_card(model, card), flavour=flavour, precision=precision, batch=batch, size=size,
            capabilities=tuple(names(compute_capability) or ()), progress=progress,
        )  # fmt: skip
    print_built(built)


@app.command("verify")
def verify_engines(
    model: Annotated[str, typer.Argument(help="Name or .onnx file of the model.")],
    card: Card = None,
    clip: Annotated[str | None, typer.Option(help="Video to compare on; a street clip by default.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames, spread over two seconds or so.")] = 10,
    require: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 1 where less of the pixels or boxes agrees.")
    ] = 0.0,
    as_json: Json = None,
) -> None:
    """Run every engine that is present on the same frames and print how far they agree."""
    from perception.commands.terminal import print_agreements
    from perception.diagnostics.verify import verify
    from perception.sources.clips import clip_frames

    results = verify(model, clip_frames(clip, frames), card=card)
    print_agreements(results, as_json)
    raise typer.Exit(1 if min(result.least for result in results) < require else 0)


cache = typer.Typer(help="Engines that were built and kept.", no_args_is_help=True)
app.add_typer(cache, name="cache")


@cache.command("list")
def cache_list(as_json: Json = None) -> None:
    """List the engines that are kept, the one used last first."""
    from perception.commands.terminal import print_engines
    from perception.engines.trt.cache import EngineCache

    print_engines(EngineCache(), as_json)


@cache.command("clear")
def cache_clear() -> None:
    """Remove all engines that are kept."""
    from perception.engines.trt.cache import EngineCache

    count, size = EngineCache().clear()
    typer.echo(f"removed {count} engine{'' if count == 1 else 's'}, {size / 1e6:.1f} MB")


@app.command()
def adapt(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file made by others.")],
    card: Annotated[Path, typer.Option(help="YAML card with an adapter section, as in configs/cards/.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx to write, with the card inside.")],
    engine: Engine = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Rewrite a foreign ONNX detector or segmenter as a model that runs like any other.

    [bold]Example[/bold]

      perception adapt yolov8n.onnx --card configs/cards/yolov8.yaml -o yolov8n-adapted.onnx
    """
    from perception.foreign import adapt as adapt_file

    written = adapt_file(model, card, output, engine=engine, overwrite=overwrite)
    typer.echo(f"{output}: {written.name}, {', '.join(written.tasks)}, {written.input.width}x{written.input.height}")


@app.command()
def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART]...", help="kernels, stages, pipeline, engines (all by default); live; models."),
    ] = None,
    as_json: Json = None,
    model: Model = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    clip: Annotated[Path | None, typer.Option(help="Video for the pipeline; a street clip at 720p by default.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each kernel.")] = 30,
    against: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="What models compares with; again for more.")
    ] = None,
) -> None:
    """Measure kernels, stages and the pipeline against the obvious alternatives, in the same run.

    [bold]Examples[/bold]

      perception bench kernels pipeline

      perception bench models --against lraspp.onnx --precision bf16
    """
    from perception.bench import run_bench
    from perception.commands.terminal import print_tables

    tables = run_bench(
        parts, model=model, engine=engine, precision=precision, clip=clip, repeats=repeats, against=against or ()
    )
    print_tables(tables, as_json)


app.command("train")(train)
app.command("export")(export)
app.command("quantize")(quantize_model)
app.command("explain")(explain_model)
app.command("summary")(summary)


@app.callback(invoke_without_command=True)
def _main(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if ctx.invoked_subcommand is not None:
        from perception.commands.terminal import log_to_stderr

        log_to_stderr(debug)
    if version:
        from perception.common.version import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the ``perception`` command."""
    debug = "--debug" in sys.argv
    if debug:
        # Accepted anywhere on the line, not only before the command.
        sys.argv.remove("--debug")
    # What `docker stop` and systemd send is a Ctrl-C too: outputs are finished, not left as drafts.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except PerceptionError as error:
        if debug:
            raise
        from perception.commands.terminal import complain

        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
