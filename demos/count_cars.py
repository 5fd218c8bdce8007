"""Count cars that cross the middle of a street, by direction; print each as it crosses.

python demos/count_cars.py street.mp4
"""

import sys

import perception
from perception.rules.settings import make_rules
from perception.stages.rules import RulesStage
from perception.stages.track import TrackStage, tracking_options

# From the top of the picture to its bottom, so the first direction, to the left of that way, is to the right as seen.
rules = make_rules(
    {
        "lines": [
            {
                "name": "middle",
                "points": [[0.5, 0.0], [0.5, 1.0]],
                "directions": ["rightwards", "leftwards"],
                "classes": ["car", "truck", "bus"],
            }
        ]
    }
)

with (
    perception.open_source(sys.argv[1] if len(sys.argv) > 1 else "synthetic:?frames=300") as source,
    perception.load_model("street-open", mode="throughput") as model,
):
    following = model.with_options(tracking_options(model.card))
    stages = [TrackStage(model.card), RulesStage(model.card, rules)]
    for prediction in perception.predict(source, following, stages):
        for event in prediction.events:
            print(
                f"{event.source_time:7.2f} s  {event.class_name} {event.track_id} {event.direction}, the {event.count}."
            )
print("done")
