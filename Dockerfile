# Both services in one image; the command says which: python -m metrics_adapter, python -m drain_hook.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/celery-hpa && \
    /opt/celery-hpa/bin/pip install --no-cache-dir --require-hashes -r requirements.lock && \
    python -m venv /opt/build && \
    /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY metrics_adapter metrics_adapter
COPY drain_hook drain_hook
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheel . && \
    /opt/celery-hpa/bin/pip install --no-cache-dir --no-deps /tmp/wheel/*.whl

FROM python:3.13-slim
LABEL org.opencontainers.image.title="celery-hpa" \
      org.opencontainers.image.description="Task-aware autoscaling of Celery workers with the native Kubernetes HPA" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/celery-hpa /opt/celery-hpa
ENV PATH="/opt/celery-hpa/bin:$PATH" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
CMD ["python", "-m", "metrics_adapter", "--help"]
