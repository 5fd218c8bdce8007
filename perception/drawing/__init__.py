"""Drawing on pictures: boxes, labels, legends, class masks."""
