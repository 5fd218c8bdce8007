"""TensorRT without running it: the graph as its parser takes it, building, inspecting, and the cache of engines.

None of this needs a GPU with TensorRT for RTX, which builds ahead of time for compute capabilities that are named.
"""
