# rankd with the native engine, for CPUs.
#   docker build -f docker/cpu.Dockerfile -t rankd:cpu .
#   docker run --rm -p 8000:8000 rankd:cpu

FROM python:3.12-slim-bookworm AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN python -m venv /opt/rankd
# torch comes from PyTorch's index: PyPI's build brings gigabytes of CUDA libraries.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/rankd/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)" \
    && /opt/rankd/bin/pip install --no-cache-dir -c constraints.txt '.[native,redis,otel]' \
    && /opt/rankd/bin/pip uninstall --yes pip

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 1000 rankd
COPY --from=build /opt/rankd /opt/rankd
# Downloaded models: mount a volume here to keep them.
RUN install -d -o rankd -g rankd /home/rankd/.cache/huggingface
USER 1000
WORKDIR /home/rankd
ENV PATH=/opt/rankd/bin:$PATH RANKD_HOST=0.0.0.0
LABEL org.opencontainers.image.title="rankd" \
      org.opencontainers.image.description="rankd with its own engine, for CPUs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["rankd", "probe"]
ENTRYPOINT ["rankd"]
CMD ["serve"]
