# Two images: `gateway` (no torch) and `engine` (vLLM's CUDA build; a worker or the summariser).
# docker compose builds both; `consilium compose` writes the compose file.

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN python3 -m venv /opt/venv \
    && useradd --uid 10001 --create-home --home-dir /cache consilium
# NOTICE too: the engine's image holds adapters to weights under licences of their own.
COPY pyproject.toml LICENSE NOTICE ./
COPY constraints constraints

# Dependencies before the code: a changed line of ours costs no second download of theirs.
FROM base AS gateway
RUN pip install --constraint constraints/gpu.txt .
COPY gateway gateway
RUN pip install --no-deps --force-reinstall . && rm -rf build consilium.egg-info
COPY panel.toml ./
COPY models/zoo/competence.json models/zoo/
USER consilium
EXPOSE 8000
# Only the compose network reaches it, and 127.0.0.1 where the port is published there.
CMD ["python", "-m", "gateway", "--host", "0.0.0.0", "--without-keys"]

FROM base AS engine
# Triton compiles small kernels when a server starts.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --constraint constraints/gpu.txt '.[gpu]' \
    && pip install --no-deps --constraint constraints/gpu.txt vllm-bnb-plugin
COPY gateway gateway
COPY services services
COPY models models
RUN pip install --no-deps --force-reinstall . && rm -rf build consilium.egg-info
COPY panel.toml ./
# Base weights, merged models and compiled kernels: a volume that all engines share.
ENV CONSILIUM_CACHE=/cache HOME=/cache
USER consilium
VOLUME /cache
CMD ["consilium", "--help"]
