"""Source to model to stages to sinks, everything at once, nothing unbounded.

    with open_source("in.mp4") as source, load_model("street-open", mode="throughput") as model:
        report = run(source, model, annotator=Annotator(model.card), sinks=[open_sink("out.mp4")])
    print(report.fps)

Threads, and what is handed over between them::

    decoder ──Frame──▶ workers (one per engine stream, and one more) ──Prediction, in order──▶ stages + draw ──▶ sinks
                       resize, infer, post-process                                              (one thread per sink)

Every hand-over is bounded, so the slowest part sets the pace and memory stays flat. For a file the decoder reads a
few frames ahead; for a live source it takes a frame only when a worker is free, and the source itself keeps just the
newest one. Decoding, inference, kernels and encoding all release the GIL, so the threads really run side by side.

An error anywhere stops everything: the sinks keep what they wrote as valid files (``Sink.abort``) and the first error
is raised. A source that fails midway is let run dry first, so no decoded frame is lost.
"""

from __future__ import annotations

from perception.pipeline.runner import Report, predict, run
from perception.pipeline.stage_chain import StageChain

__all__ = ["Report", "StageChain", "predict", "run"]
