# syntax=docker/dockerfile:1
# CPU image: annotate files or streams on any x86-64 or ARM64 machine.
#   docker build -t perception .
#   docker run --rm -v "$PWD:/data" perception annotate street.mp4 -o annotated.mp4

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY perception perception
# A wheel and its dependencies in one folder: the final image gets no compiler, no pip cache and no source tree.
RUN python -m venv /opt/perception \
 && /opt/perception/bin/pip install --no-cache-dir .

FROM python:3.12-slim
# What the opencv-python wheel links to and a slim image lacks.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 perception
COPY --from=build /opt/perception /opt/perception
ENV PATH=/opt/perception/bin:$PATH
USER perception
# Kernels are compiled once, here, into the user's cache, so that no container waits for them.
RUN python -c "from perception.postprocess import warmup; warmup()"
WORKDIR /data
ENTRYPOINT ["perception"]
CMD ["--help"]
