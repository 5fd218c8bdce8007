"""Saliency maps of any model that runs here, from its ONNX file. Needs torch and captum."""
