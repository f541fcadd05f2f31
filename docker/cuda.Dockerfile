# rankd in the image of vLLM, for CUDA GPUs. Configuration-tested, not run on hardware.
#   docker build -f docker/cuda.Dockerfile -t rankd:cuda .
#   docker run --rm --gpus all --ipc=host -p 8000:8000 \
#     -v ~/.cache/huggingface:/home/rankd/.cache/huggingface rankd:cuda serve Qwen/Qwen3-Reranker-4B

FROM python:3.12-slim-bookworm AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# vLLM 0.26 to 0.33 work.
FROM vllm/vllm-openai:v0.32.0
COPY --from=build /wheels /wheels
# The wheel without its dependencies, then only the packages that the image lacks: torch,
# transformers and fastapi must stay at vLLM's versions. The import fails if one is missing.
RUN python3 -m pip install --no-cache-dir --no-deps /wheels/*.whl \
    && python3 -m pip install --no-cache-dir \
        'cachetools>=5.3,<9' 'limits>=4.3,<6' 'python-multipart>=0.0.18,<1' 'redis>=5.2,<9' \
        'sentencex>=1.0.32,<2' 'shtab>=1.10,<2' \
    && python3 -c "import huggingface_hub, rankd.ranking.redis_cache, rankd.server.run, tqdm, uvloop" \
    && rankd --version \
    && useradd --create-home --uid 10001 rankd \
    && install -d -o rankd /home/rankd/.cache/huggingface
USER 10001
WORKDIR /home/rankd
ENV RANKD_HOST=0.0.0.0 RANKD_ENGINE=vllm
LABEL org.opencontainers.image.title="rankd" \
      org.opencontainers.image.description="rankd in vLLM's image, for CUDA GPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8000
# Loading the weights of the 8B model from a slow disk, and compiling, take minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --retries=3 \
    CMD ["rankd", "probe"]
ENTRYPOINT ["rankd"]
CMD ["serve"]
