"""Batches: many files annotated by several processes, so that a kill at any moment costs no more than what was in work.

    batch = Batch(["videos/"], Annotation(model="street-open"), Outputs(video="out/"), jobs=4, resume=True)
    for result in batch.run():
        print(result.source, result.report or result.error)
    print(batch.summary.line())

The work is planned once, a task for each file. Workers write drafts; the parent publishes what is whole and puts it
into the manifest. docs/batches.md is for users.
"""

from perception.batch.progress import Progress
from perception.batch.run import Batch
from perception.batch.sources import common_folder, read_list

__all__ = ["Batch", "Progress", "common_folder", "read_list"]
