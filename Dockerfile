# Build:  docker build -t sepsis-rl .
#         docker build -t sepsis-rl --build-arg TORCH_INDEX=URL .   (torch from another index: its CPU builds are much smaller)
# Run:    docker run --rm -v sepsis-runs:/app/runs -v sepsis-data:/app/data sepsis-rl fit --config configs/cql.yaml
#         (with a GPU: --gpus all)
# Curves: docker run --rm -v sepsis-runs:/app/runs -p 127.0.0.1:6006:6006 --entrypoint tensorboard sepsis-rl --logdir runs --bind_all
ARG BASE=docker.io/library/python:3.11-slim
FROM ${BASE}

ARG TORCH_INDEX=""
ENV PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PROGRESS_BAR=off \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /app

# The dependencies first: this layer stays as it is until a version changes.
COPY pyproject.toml constraints.txt ./
RUN export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /tmp/requirements.txt \
    && if [ -n "$TORCH_INDEX" ]; then python -m pip install --no-deps --index-url "$TORCH_INDEX" torch; fi \
    && python -m pip install -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt

# Then the project. setuptools came with torch, so nothing is fetched to build it.
COPY README.md LICENSE ./
COPY sepsis_rl sepsis_rl
RUN python -m pip install --no-deps --no-build-isolation . \
    && rm -rf build sepsis_rl sepsis_rl.egg-info \
    && useradd --uid 1000 --create-home sepsis \
    && mkdir runs data \
    && chown sepsis:sepsis runs data
COPY configs configs

USER 1000
VOLUME ["/app/runs", "/app/data"]
EXPOSE 6006
ENTRYPOINT ["lightning"]
