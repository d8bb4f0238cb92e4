# The worker's image: what it needs, who builds it how, and what was tried of it, is in README, "The image".

# Python 3.11 on Debian and nothing else: torch's own wheels bring CUDA, and the host's driver is mounted in.
ARG BASE_IMAGE=docker.io/library/python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d


# The packages alone: most of the image's bytes, and no line of our code, which changes oftener.
FROM ${BASE_IMAGE} AS packages
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
# espeak (GPL-3) is what the Hub's tests speak with; EXTRAS=xtts is an image without it.
ARG EXTRAS=xtts,espeak,sentry
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import sys, tomllib; \
        assert sys.version_info[:2] == (3, 11), "the base image needs Python 3.11"; \
        project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        extras = [project["optional-dependencies"][name] for name in sys.argv[1].split(",")]; \
        print(*project["dependencies"], *sum(extras, []), sep="\n")' "$EXTRAS" > requirements.txt; \
    python3 -m venv /opt/venv; \
    /opt/venv/bin/python -m pip install --no-cache-dir -r requirements.txt -c constraints.txt


# The weights, where the build was given any. Whoever bakes them has accepted their licence (CPML, non-commercial).
FROM packages AS baked
ARG COQUI_TOS_AGREED=0
# The folder weights/ with the official files of XTTS-v2, if there is one: a COPY needs one source that exists.
COPY constraints.txt weights* /official/
# Only what the conversion imports. A change elsewhere does not repeat it, and what it writes is the same byte for byte:
# the layer of gigabytes that the final stage makes of it stays, whatever becomes of the code.
COPY tts_core/__init__.py tts_core/errors.py tts_core/types.py tts_core/
COPY tts_core/xtts tts_core/xtts
RUN mkdir /models; \
    case "$COQUI_TOS_AGREED $(ls -I constraints.txt /official)" in \
        "0 ") echo "no weights are baked" ;; \
        "1 "?*) /opt/venv/bin/python -m tts_core.xtts.checkpoint convert /official /models/xtts_v2 --precision fp32 bf16; \
            chmod -R a+rX /models ;; \
        *) echo "weights are baked from the folder weights/ and with COQUI_TOS_AGREED=1: needs both" >&2; exit 1 ;; \
    esac


FROM ${BASE_IMAGE}
# From what changes least to what changes most.
COPY --from=packages /opt/venv /opt/venv
COPY --from=baked /models /models

# RUNPOD_LOG_LEVEL: the SDK's own DEBUG logs texts and audio.
# RUNPOD_MIN_…, RUNPOD_GPU_…: the SDK's checks of the machine before the first job; one that fails ends the worker.
# The image may fill most of a small disk; torch needs a driver for CUDA 13.0; 2 s is little for CUDA's first start.
# HOME: numba, which coqui-tts imports, must find a folder it can write, also where everything but /tmp is read-only.
# NVIDIA_…: asks NVIDIA's container runtime for the driver, which a base of theirs would do.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RUNPOD_LOG_LEVEL=INFO \
    RUNPOD_MIN_DISK_PERCENT=2 \
    RUNPOD_MIN_CUDA_VERSION=13.0 \
    RUNPOD_GPU_BENCHMARK_TIMEOUT=10

WORKDIR /app
# The two folders that the worker writes to, if it is not told others.
RUN install -d -o 10001 -g 10001 data out
COPY handler.py test_input.json ./
COPY samples samples
COPY storage storage
COPY tts_core tts_core
# Compiled here, because the worker's user may not write beside its code.
RUN python -m compileall -q --invalidation-mode unchecked-hash handler.py storage tts_core

USER 10001:10001

# A worker of a queue takes jobs and listens on no port: RunPod knows it by its pings, and there is nothing to probe.
# PORT is set where RunPod balances HTTP requests over workers; 204 there means that the worker still loads.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD ["python", "-c", "\
import os, sys; from http.client import HTTPConnection; env = os.environ; \
    sys.exit(0) if 'RUNPOD_WEBHOOK_GET_JOB' in env or 'PORT' not in env else None; \
    asked = HTTPConnection('127.0.0.1', int(env.get('PORT_HEALTH') or env['PORT']), timeout=4); \
    asked.request('GET', env.get('HEALTH_CHECK_PATH', '/ping')); \
    sys.exit(asked.getresponse().status != 200)"]

CMD ["python", "-u", "handler.py"]
