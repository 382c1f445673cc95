"""The instructions of the Dockerfile."""

from typing import NamedTuple

from tests.deploy.manifests import ROOT


class Instruction(NamedTuple):
    """A word and what follows it, continued lines joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def copied() -> list[str]:
    """What is copied from the project, as paths within it."""
    copies = [one.rest.split() for one in instructions() if one.word == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]
