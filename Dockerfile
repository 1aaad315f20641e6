# Three images: `gateway` (no torch, no command line), `engine` (vLLM; a worker or the summariser),
# the latter with BUILD=gpu or BUILD=cpu, and `archive`. docker compose builds them; `consilium
# compose` writes the compose file.

FROM python:3.11-slim-bookworm AS base
# PYTHONSAFEPATH: what is mounted into /app is never taken for a package.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN useradd --uid 10001 --create-home --home-dir /cache consilium
# NOTICE too: the engine's image holds adapters to weights under licences of their own.
COPY LICENSE NOTICE ./

# What is needed to install, and not to run: it stays behind.
FROM base AS builder
RUN python3 -m venv /opt/venv
COPY pyproject.toml ./
COPY constraints constraints

# Dependencies alone, no installer beside them, and uncompiled: a start takes 0.3 s longer for 34 MB.
# Of imagecodecs' fifty codecs (79 MB) those of DICOM stay (7 MB), and are tried.
FROM builder AS gateway-environment
# What pyproject.toml calls archive, burned-in or nifti, with commas between.
ARG EXTRAS=""
RUN pip install --no-compile --constraint constraints/gpu.txt ".${EXTRAS:+[$EXTRAS]}" \
    && pip uninstall --yes setuptools pip \
    && rm /opt/venv/bin/consilium \
    && cd /opt/venv/lib/python3.11/site-packages \
    && find imagecodecs -name '_*.so' -regextype posix-extended \
        ! -regex '.*/_(shared.*|imcd|jpeg8|jpegls|jpeg2k)\.abi3\.so' -delete \
    && find imagecodecs.libs -name '*.so*' -regextype posix-extended \
        ! -regex '.*/lib(jpeg|charls|openjp2|lcms2)-.*' -delete \
    && python -B -c 'from imagecodecs import DICOMRLE, JPEG2K, JPEG8, JPEGLS; \
        assert all(codec.available for codec in (DICOMRLE, JPEG2K, JPEG8, JPEGLS))'

FROM base AS gateway
COPY --from=gateway-environment /opt/venv /opt/venv
ENV PYTHONPATH=/opt/consilium
# A verdict that is stored as a page is drawn with it: letters of Spanish and Chinese.
ARG EXTRAS=""
RUN case ",$EXTRAS," in *,archive,*) \
        apt-get update \
        && apt-get install --yes --no-install-recommends fonts-wqy-zenhei \
        && rm -rf /var/lib/apt/lists/* ;; \
    esac
COPY gateway /opt/consilium/gateway
COPY panel.toml ./
COPY models/zoo/competence*.json models/zoo/
# A volume that is mounted here belongs to who owns this.
RUN install --directory --owner consilium audit feedback
USER consilium
EXPOSE 8000
# Only the compose network reaches it, and 127.0.0.1 where the port is published there.
CMD ["python", "-m", "gateway", "--host", "0.0.0.0", "--without-keys"]

# Debian's Orthanc, to which the tests hold the gateway.
FROM base AS archive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends orthanc orthanc-dicomweb \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner consilium /archive
USER consilium
EXPOSE 8042
CMD ["sh", "-c", "ARCHIVE_PASSWORD=$(cat /run/secrets/archive_password) exec Orthanc /etc/archive.json"]

FROM builder AS engine
ARG BUILD=gpu
# With ray it is a node of a Ray cluster.
ARG EXTRAS=""
# Only the CPU build needs it: the package index that carries torch's CPU wheel.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Triton compiles small kernels when a server starts. By wget KubeRay asks whether a node is well.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev wget \
    && rm -rf /var/lib/apt/lists/*
# Dependencies before the code: a changed line of ours costs no second download of theirs.
RUN if [ "$BUILD" = cpu ]; then \
        pip install --no-deps ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch==2.13.0+cpu; \
    fi \
    && pip install --constraint "constraints/$BUILD.txt" ".[$BUILD${EXTRAS:+,$EXTRAS}]" \
    && pip install --no-deps --constraint "constraints/$BUILD.txt" vllm-bnb-plugin
COPY client client
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
