# The core with PyTorch for the CPU. Run line: docs/installing.md.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
RUN python -m venv /opt/dp360 \
    && /opt/dp360/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY generation generation
COPY reconstruction reconstruction
COPY exporters exporters
COPY configs configs
ARG EXTRAS=""
RUN /opt/dp360/bin/pip install ".${EXTRAS}"

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="dp360" \
      org.opencontainers.image.description="From one portrait to a complete 3D head, on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/dp360 /opt/dp360
# Whoever runs it may write to these two and nowhere else: results, and kernels compiled for this CPU.
RUN mkdir /work /cache && chmod 1777 /work /cache
ENV PATH=/opt/dp360/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/work \
    XDG_CACHE_HOME=/cache
USER 10001:10001
WORKDIR /work
VOLUME ["/cache"]
ENTRYPOINT ["dp360"]
CMD ["--help"]
