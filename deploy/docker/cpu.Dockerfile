# docker build -f deploy/docker/cpu.Dockerfile -t inference-server:cpu .
# The same image runs a server of its own and, with KubeRay's commands, the nodes of a cluster.
FROM python:3.12.11-slim-bookworm AS build

# Debian's own updates are wanted; the base image is what is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential cmake git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt ./
# `--build-arg EXTRAS="s3fs"` for an object store. Without CUDA, torch is a tenth of the size.
ARG EXTRAS=""
ARG TORCH_INDEX="https://download.pytorch.org/whl/cpu"
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What is installed is pinned in constraints.txt.
# hadolint ignore=DL3013,DL3042,SC2086
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && python -m venv /venv \
    && CMAKE_ARGS="-DGGML_NATIVE=off" /venv/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
        -c constraints.txt -r requirements.txt $EXTRAS


FROM python:3.12.11-slim-bookworm

# A login shell, which KubeRay may use, forgets PATH: hence the link.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 tini \
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
