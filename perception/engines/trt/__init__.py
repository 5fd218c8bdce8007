"""TensorRT except running it: preparing the graph, building, inspecting, and the engine cache.

None of this needs a GPU with TensorRT for RTX, which builds ahead of time for compute capabilities that are named.
"""
