"""`python -m drain_hook`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from drain_hook.app import run_hook
from shared.logs import configure_logging
from shared.serving import run
from shared.settings import parse_arguments

DESCRIPTION = (
    "Admission webhook on scale-downs: drains the cheapest Celery workers, has Kubernetes delete exactly "
    "those, and refuses while busy ones would have to go. Stops gracefully on SIGTERM."
)


def main(argv: Sequence[str] | None = None) -> int:
    settings = parse_arguments(
        argv,
        prog="python -m drain_hook",
        description=DESCRIPTION,
        port=8443,
        telemetry_port=9091,
        checks_clients=True,
    )
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    return run(run_hook(settings))


if __name__ == "__main__":
    sys.exit(main())
