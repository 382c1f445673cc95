"""`python -m shared.checkup check`, which is `celery-hpa check`."""

from __future__ import annotations

import sys

from shared.checkup.command import main

if __name__ == "__main__":
    sys.exit(main())
