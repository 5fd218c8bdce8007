# syntax=docker/dockerfile:1
# Annotate files or streams, or serve the live page (port 7860).
#   docker build -t perception .                                # any CPU, x86-64 or ARM64
#   docker build -t perception:cuda --target cuda .             # NVIDIA GPUs in a PC or a server
#   docker build -t perception:jetson --target jetson .         # on a Jetson with JetPack 6
#   docker run --rm -v "$PWD:/data" perception annotate street.mp4 -o annotated.mp4
#   docker run --rm -p 127.0.0.1:7860:7860 perception live --host 0.0.0.0 --insecure
#   docker run --rm --gpus all -v "$PWD:/data" perception:cuda annotate street.mp4 -o annotated.mp4
#   docker run --rm --runtime nvidia -v /tmp/argus_socket:/tmp/argus_socket -v "$PWD:/data" \
#       perception:jetson annotate csi://0 -o camera.mp4 --duration 10
# What runs inside is the user 1000, who must be able to write into the folder. The models that are for research only are
# not in the images; they can be given by their path:
#   docker run --rm -v "$PWD:/data" -v "$PWD/research/perception_weights_research:/models:ro" perception \
#       annotate street.mp4 -o annotated.mp4 -m /models/street.onnx

# Every package is the one that requirements/*.txt gives by its hash. An image is the same one each time only by its
# digest, which is looked up where the registry is: docker buildx imagetools inspect python:3.12-slim
#   --build-arg PYTHON_IMAGE=python:3.12-slim@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim
# NVIDIA's image of that name, pulled and tagged, or --build-arg JETSON_BASE=IMAGE. It matches JetPack 6: CUDA 12.6,
# TensorRT 10.3, Python 3.10; for JetPack 7 see docs/jetson.md.
ARG JETSON_BASE=l4t-jetpack:r36.4.0

# The package and its dependencies in one folder: the final images have no compiler, no pip cache and no source tree.
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements requirements
RUN python -m venv /opt/perception \
 && /opt/perception/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt -r requirements/live.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY perception perception
RUN /opt/perception/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM build AS build-cuda
# `tensorrt` for servers, `tensorrt-rtx` for RTX cards. CUDA's own libraries come as wheels, the driver from the host.
ARG TENSORRT=tensorrt
# What the package index has of TensorRT's libraries is a source package that fetches them from NVIDIA's own index while it
# is installed: the build must reach that, or a mirror that is given here. pip reads this variable.
ARG PIP_EXTRA_INDEX_URL=
RUN /opt/perception/bin/pip install --no-cache-dir --require-hashes -r "requirements/live-${TENSORRT}.txt"

FROM ${PYTHON_IMAGE} AS runtime
# Libraries that the opencv-python wheel links to and a slim image lacks.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 perception
ENV PATH=/opt/perception/bin:$PATH
WORKDIR /data
EXPOSE 7860
ENTRYPOINT ["perception"]
CMD ["--help"]

FROM runtime AS cuda
# `video` provides NVDEC: without it videos are decoded on the CPU.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
COPY --from=build-cuda /opt/perception /opt/perception
USER 1000
# Kernels are compiled once, here, into the user's cache, so that no container waits for them.
RUN python -c "from perception.postprocess import warmup; warmup()"

# hadolint ignore=DL3006
FROM ${JETSON_BASE} AS jetson
# TensorRT and OpenCV come from the system: NVIDIA has no TensorRT wheels for a Jetson, and pip's OpenCV no GStreamer.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      gstreamer1.0-plugins-base gstreamer1.0-plugins-good python3-opencv python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv --system-site-packages /opt/perception \
 && if ! id 1000 > /dev/null 2>&1; then useradd --create-home --uid 1000 --groups video perception; fi
ARG JETPACK=6
WORKDIR /src
COPY requirements requirements
RUN /opt/perception/bin/pip install --no-cache-dir --require-hashes \
      -r requirements/build.txt -r "requirements/jetpack${JETPACK}.txt"
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY perception perception
RUN /opt/perception/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/perception/bin/python -c "from perception.sources.csi import has_gstreamer; assert has_gstreamer()"
ENV PATH=/opt/perception/bin:$PATH
USER 1000
RUN python -c "from perception.postprocess import warmup; warmup()"
WORKDIR /data
EXPOSE 7860
ENTRYPOINT ["perception"]
CMD ["--help"]

FROM runtime AS cpu
COPY --from=build /opt/perception /opt/perception
USER 1000
RUN python -c "from perception.postprocess import warmup; warmup()"
