"""Annotate every video and picture in a folder into another folder.

A bad file is reported, and the rest are processed.

python demos/annotate_folder.py videos/ annotated/
"""

import sys

import perception
from perception.annotate import Outputs, annotate_all

folder, output = sys.argv[1:3]
outputs = Outputs(video=f"{output}/", jsonl=f"{output}/")
failed = 0
with perception.load_model("street-open", mode="throughput") as model:
    annotator = perception.Annotator(model.card, opacity=0.4)
    for result in annotate_all([folder], model, outputs, annotator=annotator, overwrite=True):
        if result.report is None:
            failed += 1
            print(f"failed: {result.error}")
        else:
            print(f"{result.source}: {result.report.frames} frames at {result.report.fps:.1f} fps")
sys.exit(1 if failed else 0)
