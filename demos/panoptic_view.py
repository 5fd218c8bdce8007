"""Panoptic view: the pixels of a thing class split along boxes, drawn with contours and written as COCO has them.

python demos/panoptic_view.py MODEL SOURCE FOLDER SEGMENT=BOX[+BOX...] ...

python demos/panoptic_view.py street street.mp4 out car=car+bus+truck pedestrian=person
"""

import sys
from pathlib import Path

import cv2

import perception
from perception.evaluation.panoptic import PanopticFolder
from perception.postprocess.panoptic import draw_contours, panoptic

model_name, uri, output, *pairs = sys.argv[1:]
with perception.open_source(uri) as source, perception.load_model(model_name, mode="throughput") as model:
    segments, boxes = model.card.segmentation, model.card.detection
    if segments is None or boxes is None:
        sys.exit(f"{model_name} must give both masks and boxes")
    split = (pair.split("=") for pair in pairs)
    things = {segments.names.index(a): [boxes.names.index(name) for name in b.split("+")] for a, b in split}
    colors_bgr = [c.color[::-1] for c in segments.classes]
    folder = PanopticFolder(Path(output), segments.classes, things, overwrite=True)
    for prediction in perception.predict(source, model):
        assert prediction.class_map is not None and prediction.detections is not None
        view = panoptic(prediction.class_map.mask, prediction.detections, things, min_area=30)
        name = f"{prediction.frame.index:06d}"
        folder.write(name, view)
        picture = prediction.frame.image.copy()
        draw_contours(picture, view, colors_bgr)
        cv2.imwrite(str(Path(output) / f"{name}.jpg"), picture)
        print(name, ", ".join(f"{segments.names[s.class_id]} {s.score:.2f}" for s in view.segments if s.score))
    folder.close()
