# The service on the CPU, with its embedded model: docs/service.md says how it is run.
FROM python:3.11-slim-bookworm AS build

# PyTorch's own index of CPU builds: the default ones bring gigabytes of CUDA libraries along.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /opt/lad-agent \
    && /opt/lad-agent/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
        -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY lad_agent ./lad_agent
RUN /opt/lad-agent/bin/pip install --no-cache-dir -c constraints.txt ".[serve,postgres]"


FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin lad-agent \
    && install --directory --owner=lad-agent /data
COPY --from=build /opt/lad-agent /opt/lad-agent

# The root file system is never written to, nor is anything looked for on the network.
ENV PATH=/opt/lad-agent/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    HF_HOME=/tmp/huggingface \
    LAD_AGENT_BY=lad-agent

# The store, where it is a file, its images and pauses, and lad-agent.toml.
WORKDIR /data
VOLUME /data
USER 10001
EXPOSE 8321

HEALTHCHECK --start-period=60s --start-interval=2s --interval=30s --timeout=5s \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8321/readyz', timeout=4)"]
ENTRYPOINT ["lad-agent"]
CMD ["serve", "--host", "0.0.0.0"]
