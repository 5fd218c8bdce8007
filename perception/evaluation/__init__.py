"""Accuracy of a model: the exported file, run by the real engine, on labelled pictures. Needs no torch.

    from perception.evaluation.segmentation import evaluate_segmentation

    result = evaluate_segmentation("camvid", "val/images", "val/labels", ignore=[11])
    print(result.confusion.mean_iou(), result.summary())

`folders`, `coco` and `classes` read data sets and name every fault in them; training reads with the same code.
"""
