"""Models in eight bits: ranges calibrated on real pictures, layers kept in float where accuracy asks for it.

    from perception.quantize.quantize import Validation, quantize

    result = quantize("camvid", ["train/images"], "camvid-int8.onnx", validation=Validation(labels="train/labels"))
    print(result.rows())

The result is one more model file with Q/DQ nodes: OpenVINO, ONNX Runtime and TensorRT all run it. Needs no torch.
"""
