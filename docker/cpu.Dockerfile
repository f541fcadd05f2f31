# rankd with the native engine, for CPUs: x86-64 and arm64.
#   docker build -f docker/cpu.Dockerfile -t rankd:cpu .
#   docker run --rm -p 8000:8000 -v rankd:/data rankd:cpu

# A mirror, or a digest: --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN python -m venv /opt/rankd
# torch comes from PyTorch's index: PyPI's build brings gigabytes of CUDA libraries.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PIP_INDEX_URL
# Without what only compilers and torch's own tests need; torch_shm_manager is used at run time.
RUN /opt/rankd/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)" \
    && /opt/rankd/bin/pip install --no-cache-dir -c constraints.txt '.[native,redis,otel]' \
    && /opt/rankd/bin/pip uninstall --yes pip setuptools \
    && torch="$(echo /opt/rankd/lib/python3*/site-packages/torch)" \
    && rm -rf "$torch/include" "$torch/test" \
    && find "$torch/bin" -type f ! -name torch_shm_manager -delete \
    && find "$torch/lib" -name '*.a' -delete

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
# All that is written at run time is below /data: any user may write there, so `--user` needs no
# preparation, and a volume keeps downloads. Nothing is installed at run time: no pip.
RUN useradd --uid 1000 --home-dir /data --no-create-home rankd \
    && install -d -m 1777 /data \
    && python -m pip uninstall --yes setuptools wheel pip \
    && rm -r "$(python -c 'import ensurepip, os; print(os.path.dirname(ensurepip.__file__))')"
COPY --from=build /opt/rankd /opt/rankd
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/rankd-entrypoint
USER 1000
WORKDIR /data
ENV PATH=/opt/rankd/bin:$PATH HOME=/data USER=rankd HF_HOME=/data/huggingface RANKD_HOST=0.0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rankd" \
      org.opencontainers.image.description="rankd with its own engine, for CPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["rankd", "probe"]
ENTRYPOINT ["rankd-entrypoint"]
CMD ["serve"]
