"""Annotating recorded and live video into files: which sources make which outputs.

    outputs = Outputs(video="out/", jsonl="out/")
    for result in annotate_all(["a.mp4", "b.mp4"], model, outputs):
        print(result.source, result.report or result.error)

One bad file never stops the rest: its error is in its result.
"""

from perception.annotate.outputs import Outputs
from perception.annotate.planning import plan, stem
from perception.annotate.result import Result
from perception.annotate.run import annotate_all, annotate_one
from perception.annotate.settings import Annotation
from perception.annotate.summary import RunSummary

__all__ = ["Annotation", "Outputs", "Result", "RunSummary", "annotate_all", "annotate_one", "plan", "stem"]
