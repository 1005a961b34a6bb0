# The image of head and workers: the packages of requirements.lock, and this folder's code.
#   docker build -t REGISTRY/temper:VERSION . && docker push REGISTRY/temper:VERSION
# PyTorch brings CUDA; the node needs a driver alone. Name the base by its digest where builds must repeat exactly.
FROM python:3.12-slim AS build
WORKDIR /home/temper/temper
COPY requirements.lock ./
# uv itself from the lock too, checked by its hash like all the rest.
RUN python -m venv .venv \
 && awk '/^uv==/ {p = 1} p {print} p && !/\\$/ {exit}' requirements.lock > /tmp/uv.txt \
 && .venv/bin/python -m pip install --no-cache-dir --require-hashes --no-deps -r /tmp/uv.txt \
 && .venv/bin/uv pip sync --no-cache --require-hashes --python .venv/bin/python requirements.lock
COPY . .
RUN .venv/bin/uv pip install --no-cache --python .venv/bin/python --no-deps --no-build-isolation --editable .

FROM python:3.12-slim
# KubeRay's probes call wget; a job's own commands call git for the commit that a record names.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends wget git \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 temper
COPY --from=build --chown=temper:temper /home/temper/temper /home/temper/temper
USER temper
WORKDIR /home/temper/temper
# No keys here: they come from the environment that a container is started in.
ENV PATH=/home/temper/temper/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
