"""Masks made by other people's networks: labels for pictures that nobody labelled by hand.

A recipe (`recipe.py`) says which teachers look at which folders, and what their classes are called here;
`mask_teacher.py` runs one of them on several views of a picture, `label.py` lets them agree and writes the label PNGs:

    make_labels(read_labels_recipe("configs/labels/street-open.yaml"))
"""
