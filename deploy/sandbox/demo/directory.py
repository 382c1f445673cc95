"""The directory that a demo writes to: its alone, and empty at first."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MADE_HERE = ".made-by-the-demo"
"""A file in the directories that the demo may empty, locked while one runs in them."""


class DirectoryTaken(Exception):
    """The directory is in use; the text says by what, and what to do."""


@contextmanager
def emptied(directory: Path) -> Iterator[Path]:
    """The directory without what an earlier demo left in it. Raises DirectoryTaken."""
    marker = directory / MADE_HERE
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()) and not marker.exists():
        raise DirectoryTaken(f"{directory} holds files that no demo made; name another --directory.")
    with marker.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryTaken(
                f"Another demo is running in {directory}; end it, or name another --directory, as in: "
                f"make demo ARGS='--directory {directory}-2'"
            ) from error
        _remove_all_but(marker)
        yield directory.resolve()


def _remove_all_but(marker: Path) -> None:
    for path in marker.parent.iterdir():
        if path == marker:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
