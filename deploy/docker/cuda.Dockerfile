# docker build -f deploy/docker/cuda.Dockerfile -t inference-server:cuda .
# As cpu.Dockerfile, with torch for CUDA and llama.cpp built for it.
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build

# Ubuntu's own updates are wanted; the base image is what is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential cmake git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt ./
# `--build-arg EXTRAS="s3fs"` for an object store; the architectures of your GPUs make it smaller.
ARG EXTRAS=""
ARG CUDA_ARCHITECTURES="75;80;86;89;90"
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What is installed is pinned in constraints.txt. The driver's library comes with the machine: while
# building there is only a stand-in to link with.
# hadolint ignore=DL3013,DL3042,SC2086
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && python3 -m venv /venv \
    && ln -s /usr/local/cuda/lib64/stubs/libcuda.so /usr/local/cuda/lib64/stubs/libcuda.so.1 \
    && LIBRARY_PATH=/usr/local/cuda/lib64/stubs \
        CMAKE_ARGS="-DGGML_NATIVE=off -DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES -DCMAKE_EXE_LINKER_FLAGS=-Wl,-rpath-link,/usr/local/cuda/lib64/stubs" \
        /venv/bin/pip install --no-cache-dir -c constraints.txt -r requirements.txt $EXTRAS


FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04

# A login shell, which KubeRay may use, forgets PATH: hence the link.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 python3 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home inference \
    && install -d -o inference -g inference /var/lib/inference \
    && ln -s /venv/bin/ray /usr/local/bin/ray

ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    INFERENCE_WEIGHTS_DIR=/var/lib/inference/weights \
    INFERENCE_DATA_DIR=/var/lib/inference/data \
    HF_HOME=/var/lib/inference/huggingface \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor
WORKDIR /app
COPY --from=build /venv /venv
COPY graph.py serve_config.yaml LICENSE ./
COPY config config
COPY deployments deployments
COPY launcher launcher
COPY models models
COPY weights weights
# In a container, loopback is the container's own: listen where its port is published.
RUN sed -i 's/^  host: 127\.0\.0\.1$/  host: 0.0.0.0/' serve_config.yaml

USER 10001:10001
VOLUME /var/lib/inference
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# tini collects the orphans that Ray's processes leave.
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "launcher"]
