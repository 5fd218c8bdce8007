"""Use predictions in your own program: the share of road in each frame, without any output file.

python demos/road_ahead.py street.mp4
"""

import sys

import perception

with perception.open_source(sys.argv[1] if len(sys.argv) > 1 else "synthetic:?frames=50") as source:
    model = perception.load_model("street-open", mode="throughput")
    assert model.card.segmentation is not None
    road = model.card.segmentation.names.index("road")
    for prediction in perception.predict(source, model):
        assert prediction.class_map is not None
        share = float(prediction.class_map.shares[road])
        print(f"{prediction.frame.time:7.2f} s  {share:6.1%}  {'#' * round(60 * share)}")
