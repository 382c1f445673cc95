"""`python -m metrics_adapter`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from metrics_adapter.app import run_adapter
from shared.logs import configure_logging
from shared.serving import run
from shared.settings import parse_arguments

DESCRIPTION = (
    "Serves external.metrics.k8s.io/v1beta1: load, demand and size of pools of Celery workers, "
    "for a native HorizontalPodAutoscaler. Stops gracefully on SIGTERM."
)


def main(argv: Sequence[str] | None = None) -> int:
    settings = parse_arguments(
        argv, prog="python -m metrics_adapter", description=DESCRIPTION, port=6443, telemetry_port=9090
    )
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    return run(run_adapter(settings))


if __name__ == "__main__":
    sys.exit(main())
