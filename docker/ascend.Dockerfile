# rankd in the image of vllm-ascend, for Ascend NPUs. Configuration-tested, not run on hardware.
#   docker build -f docker/ascend.Dockerfile -t rankd:ascend .
# Atlas A3: --build-arg IMAGE=quay.io/ascend/vllm-ascend:v0.23.0-a3, 310P: …-310p, A5: …-a5.

ARG PYTHON_IMAGE=python:3.12-slim-bookworm
ARG IMAGE=quay.io/ascend/vllm-ascend:v0.23.0

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# hadolint ignore=DL3006
FROM ${IMAGE}
ARG PIP_INDEX_URL
# Only what the image lacks is installed: torch, transformers and fastapi stay at the versions that
# torch-npu was built against, or the build fails. The import fails if a package is missing.
# All that is written at run time is below /data.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python3 -m pip list --format=freeze >/tmp/installed.txt \
    && python3 -m pip install --no-cache-dir -c /tmp/installed.txt "$(echo /wheels/*.whl)[redis,otel]" \
    && rm /tmp/installed.txt \
    && python3 -c "import huggingface_hub, rankd.ranking.redis_cache, rankd.server.run, tqdm, uvloop" \
    && rankd --version \
    && install -d -m 1777 /data
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/rankd-entrypoint
COPY --chmod=755 docker/ascend-entrypoint.sh /usr/local/bin/rankd-ascend
WORKDIR /data
# Models, and what vLLM, Triton, torch and CANN compile and log: all below one volume.
ENV HOME=/data HF_HOME=/data/huggingface \
    VLLM_CACHE_ROOT=/data/vllm TRITON_CACHE_DIR=/data/triton \
    TORCHINDUCTOR_CACHE_DIR=/data/torchinductor XDG_CACHE_HOME=/data/cache \
    RANKD_HOST=0.0.0.0 RANKD_ENGINE=vllm
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rankd" \
      org.opencontainers.image.description="rankd in vllm-ascend's image, for Ascend NPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --retries=3 \
    CMD ["rankd", "probe"]
# Root, the image's own user, because the devices belong to root on most hosts.
ENTRYPOINT ["rankd-ascend"]
CMD ["serve"]
