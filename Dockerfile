# Both services in one image; the command says which: python -m metrics_adapter, python -m drain_hook.
# For an image that is the same whenever it is built, name one by its digest:
#   docker build --build-arg PYTHON=python:3.13-slim@sha256:… .
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# What runs has no pip: it is filled from outside.
RUN python -m venv /opt/build && \
    /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock && \
    python -m venv --without-pip /opt/celery-hpa && \
    /opt/build/bin/pip --python /opt/celery-hpa/bin/python install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY metrics_adapter metrics_adapter
COPY drain_hook drain_hook
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheel . && \
    /opt/build/bin/pip --python /opt/celery-hpa/bin/python install --no-cache-dir --no-deps /tmp/wheel/*.whl

FROM ${PYTHON}
LABEL org.opencontainers.image.title="celery-hpa" \
      org.opencontainers.image.description="Task-aware autoscaling of Celery workers with the native Kubernetes HPA" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/celery-hpa /opt/celery-hpa
# Nothing is written to the file system but what Python's tempfile is asked for, in /tmp.
ENV PATH="/opt/celery-hpa/bin:$PATH" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
CMD ["python", "-m", "metrics_adapter", "--help"]
