"""The instructions of the Dockerfile, and its build stage carried out without a Docker engine."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.deploy.manifests import ROOT

INTERPRETER = Path(sys.executable).parent
"""Stands for the image that is built upon: `python` there is the one that runs the tests."""


class Instruction(NamedTuple):
    """A word and what follows it, continued lines joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def stages() -> list[list[Instruction]]:
    """What follows each FROM, itself included."""
    found: list[list[Instruction]] = []
    for one in instructions():
        if one.word == "FROM":
            found.append([])
        if found:
            found[-1].append(one)
    return found


def copied() -> list[str]:
    """What is copied from the project, as paths within it."""
    copies = [one.rest.split() for one in instructions() if one.word == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


class StepFailed(Exception):
    """A RUN did not end well; says what it printed."""


def carry_out(stage: Sequence[Instruction], root: Path) -> None:
    """Do what a stage says, its absolute paths being below `root`; raises StepFailed."""
    where = root
    for word, rest in stage:
        if word == "WORKDIR":
            where = root / rest.lstrip("/")
            where.mkdir(parents=True)
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                _copy(ROOT / source, where / target)
        elif word == "RUN":
            _run(re.sub(r"(?<![\w/.])/(?=(?:opt|tmp)/)", f"{root}/", rest), where)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _run(command: str, where: Path) -> None:
    environment = {"PATH": f"{INTERPRETER}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StepFailed(done.stdout + done.stderr)
