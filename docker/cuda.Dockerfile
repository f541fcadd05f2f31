# rankd in the image of vLLM, for CUDA GPUs. Configuration-tested, not run on hardware.
#   docker build -f docker/cuda.Dockerfile -t rankd:cuda .
#   docker run --rm --gpus all --ipc=host -p 8000:8000 -v rankd:/data \
#     rankd:cuda Qwen/Qwen3-Reranker-4B

# Mirrors, or digests: --build-arg VLLM_IMAGE=vllm/vllm-openai:v0.32.0@sha256:...
# vLLM 0.26 to 0.33 work.
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# hadolint ignore=DL3006
FROM ${VLLM_IMAGE}
ARG PIP_INDEX_URL
# Only what the image lacks is installed: torch, transformers and fastapi stay at the versions that
# vLLM was built with, or the build fails. The import fails if a package is missing.
# All that is written at run time is below /data, where any user may write.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python3 -m pip list --format=freeze >/tmp/installed.txt \
    && python3 -m pip install --no-cache-dir -c /tmp/installed.txt "$(echo /wheels/*.whl)[redis,otel]" \
    && rm /tmp/installed.txt \
    && python3 -c "import huggingface_hub, rankd.ranking.redis_cache, rankd.server.run, tqdm, uvloop" \
    && rankd --version \
    && useradd --uid 10001 --home-dir /data --no-create-home rankd \
    && install -d -m 1777 /data
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/rankd-entrypoint
USER 10001
WORKDIR /data
# Models, and what vLLM, FlashInfer, Triton, torch and the driver compile at the first start.
ENV HOME=/data USER=rankd HF_HOME=/data/huggingface \
    VLLM_CACHE_ROOT=/data/vllm FLASHINFER_WORKSPACE_BASE=/data/flashinfer \
    TRITON_CACHE_DIR=/data/triton TORCHINDUCTOR_CACHE_DIR=/data/torchinductor \
    CUDA_CACHE_PATH=/data/cuda XDG_CACHE_HOME=/data/cache \
    RANKD_HOST=0.0.0.0 RANKD_ENGINE=vllm
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rankd" \
      org.opencontainers.image.description="rankd in vLLM's image, for CUDA GPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8000
# Loading the weights of the 8B model from a slow disk, and compiling, take minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --retries=3 \
    CMD ["rankd", "probe"]
ENTRYPOINT ["rankd-entrypoint"]
CMD ["serve"]
