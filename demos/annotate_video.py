"""Annotate one video from Python: the whole API in a dozen lines.

python demos/annotate_video.py street.mp4 annotated.mp4
"""

import sys

import perception

source_path, output_path = sys.argv[1:3]

with (
    perception.open_source(source_path) as source,
    perception.load_model("street-open", mode="throughput") as model,
):
    report = perception.run(
        source,
        model,
        annotator=perception.Annotator(model.card),
        sinks=[perception.open_sink(output_path, overwrite=True), perception.open_sink("-")],
    )
print(f"{report.frames} frames at {report.fps:.1f} fps; median ms by stage: {report.stage_ms}", file=sys.stderr)
