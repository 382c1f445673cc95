"""A mounted ConfigMap or Secret, changed as the kubelet does it: a new directory, and a symlink renamed."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

_NUMBERS = count(1)


class MountedVolume:
    """Each file is a symlink through `..data`, which leads to the directory in force; no other stays."""

    def __init__(self, directory: Path, **files: str) -> None:
        """Names of `files` have _ for a dot."""
        self.directory = directory
        directory.mkdir()
        self.change(**files)

    def change(self, **files: str) -> None:
        former = self._data.resolve() if self._data.exists() else None
        fresh = self.directory / f"..2026_{next(_NUMBERS)}"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / _file(name)).write_text(text)
        beside = self.directory / "..data_tmp"
        beside.symlink_to(fresh.name)
        beside.rename(self._data)
        for name in files:
            visible = self.directory / _file(name)
            if not visible.is_symlink():
                visible.symlink_to(Path("..data", _file(name)))
        if former:
            shutil.rmtree(former)

    @property
    def _data(self) -> Path:
        return self.directory / "..data"


def _file(name: str) -> str:
    return name.replace("_", ".")
