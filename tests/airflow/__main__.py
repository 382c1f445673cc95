"""`python -m tests.airflow [VERSION …]`: real Airflows here, scaled up and down; all by default."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.airflow.installation import LeftOut, NotInstalled
from tests.airflow.releases import RELEASES, Release
from tests.airflow.stack import MOST_WORKERS
from tests.airflow.story import INSTANCES
from tests.airflow.trial import Failed, try_out
from tests.airflow.verdict import Fact, complaints, facts, table

DIRECTORY = Path("out", "airflow")


def main(arguments: list[str] | None = None) -> int:
    """0 when all went well; 1 when it did not, or nothing could be run; 130 when it was interrupted."""
    # What is started is cleared away on the way out: a SIGTERM takes the way of a Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    names = _parser().parse_args(arguments).releases or list(RELEASES)
    columns: dict[str, tuple[Fact, ...]] = {}
    wrong: list[str] = []
    left_out: list[str] = []
    try:
        for release in (RELEASES[name] for name in names):
            _try(release, columns, wrong=wrong, left_out=left_out)
    except KeyboardInterrupt:
        return 130
    print("\n".join(["", *table(columns), ""]) if columns else "")
    print("\n".join([*left_out, *wrong] or ["All is as it must be."]))
    return 1 if wrong or not columns else 0


def _try(
    release: Release, columns: dict[str, tuple[Fact, ...]], *, wrong: list[str], left_out: list[str]
) -> None:
    progress = Progress(release.name)
    try:
        seen = try_out(release, directory=DIRECTORY.resolve() / str(release.major), say=progress.say)
    except LeftOut as reason:
        left_out.append(f"{release.name} was NOT tried: {reason}")
        print(left_out[-1], flush=True)
        return
    except (NotInstalled, Failed) as error:
        wrong.append(f"{release.name}: {error}")
        return
    progress.say("all is cleared away")
    shown = facts(seen, instances=sum(INSTANCES.values()), most_workers=MOST_WORKERS)
    columns[release.name] = (*shown, Fact(name="seconds", value=f"{progress.seconds:.0f}"))
    wrong += [f"{release.name}: {complaint}" for complaint in complaints(seen, shown)]


class Progress:
    """A line with the time since the start for each thing that happens."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, what: str) -> None:
        print(f"{self._title}  {self.seconds:4.0f} s  {what}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.airflow", description="Scale real Airflows on this machine up and down."
    )
    parser.add_argument(
        "releases", nargs="*", type=_known, metavar="VERSION", help=f"of {', '.join(RELEASES)}"
    )
    return parser


def _known(text: str) -> str:
    """`choices` of argparse would refuse an empty list."""
    if text not in RELEASES:
        raise argparse.ArgumentTypeError(f"there is no {text}; name one of {', '.join(RELEASES)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
