# rankd in the image of vllm-ascend, for Ascend NPUs. Configuration-tested, not run on hardware.
#   docker build -f docker/ascend.Dockerfile -t rankd:ascend .
# Atlas A3: --build-arg IMAGE=quay.io/ascend/vllm-ascend:v0.23.0-a3, 310P: …-310p, A5: …-a5.

ARG IMAGE=quay.io/ascend/vllm-ascend:v0.23.0
FROM python:3.12-slim-bookworm AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# hadolint ignore=DL3006
FROM ${IMAGE}
COPY --from=build /wheels /wheels
COPY docker/ascend-constraints.txt /wheels/constraints.txt
COPY --chmod=755 docker/ascend-entrypoint.sh /usr/local/bin/rankd-entrypoint
# The wheel without its dependencies, then only the packages that the image lacks: torch,
# transformers and fastapi must stay at the versions that torch-npu was built against.
RUN python3 -m pip install --no-cache-dir --no-deps /wheels/*.whl \
    && python3 -m pip install --no-cache-dir -c /wheels/constraints.txt \
        'cachetools>=5.3,<9' 'httptools>=0.6.3' 'limits>=4.3,<6' 'orjson>=3.10,<4' 'python-multipart>=0.0.18,<1' \
        'redis>=5.2,<9' 'sentencex>=1.0.32,<2' 'shtab>=1.10,<2' 'tiktoken>=0.9,<1' 'tqdm>=4.66,<5' 'uvloop>=0.21' \
    && python3 -c "import huggingface_hub, rankd.ranking.redis_cache, rankd.server.run, tqdm, uvloop" \
    && rankd --version
ENV RANKD_HOST=0.0.0.0 RANKD_ENGINE=vllm
LABEL org.opencontainers.image.title="rankd" \
      org.opencontainers.image.description="rankd in vllm-ascend's image, for Ascend NPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --retries=3 \
    CMD ["rankd", "probe"]
# Root, the image's own user, because the devices belong to root on most hosts.
ENTRYPOINT ["rankd-entrypoint"]
CMD ["serve"]
