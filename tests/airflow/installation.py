"""Airflow in a virtual environment of its own, kept until its lock file changes."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tests.airflow.releases import Release

CACHE = Path(".cache", "airflow")
UV = Path(sys.executable).with_name("uv")


class LeftOut(Exception):
    """It cannot be run here; the text says why, and what would change that."""


class NotInstalled(Exception):
    """Installing failed; the text is uv's."""


def install(release: Release) -> Path:
    """The directory with Airflow's commands. Raises LeftOut, and NotInstalled."""
    python = _python_for(release)
    directory = (CACHE / f"{release.major}-{_fingerprint(release, python)}").resolve()
    finished = directory / ".installed"
    if not finished.exists():
        _remove_older(release)
        _run("venv", "--python", python, str(directory))
        _run(
            *("pip", "install", "--python", str(directory / "bin" / "python")),
            *("--require-hashes", "--requirement", str(release.lock)),
        )
        finished.touch()
    return directory / "bin"


def _python_for(release: Release) -> str:
    """Ours, or another one of this machine; none is downloaded."""
    if sys.version_info[:2] in release.pythons:
        return sys.executable
    for major, minor in reversed(release.pythons):
        found = _uv("python", "find", "--no-python-downloads", "--system", f"{major}.{minor}")
        if found.returncode == 0:
            return found.stdout.strip()
    versions = " or ".join(f"{major}.{minor}" for major, minor in release.pythons)
    raise LeftOut(
        f"it runs on Python {versions}, of which there is none here, only {platform.python_version()}. "
        "Install one of them."
    )


def _fingerprint(release: Release, python: str) -> str:
    return hashlib.sha256(release.lock.read_bytes() + python.encode()).hexdigest()[:12]


def _remove_older(release: Release) -> None:
    for directory in CACHE.glob(f"{release.major}-*"):
        shutil.rmtree(directory)


def _run(*arguments: str) -> None:
    done = _uv(*arguments)
    if done.returncode != 0:
        raise NotInstalled(done.stderr.strip())


def _uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(UV), "--quiet", *arguments], capture_output=True, text=True, check=False)
