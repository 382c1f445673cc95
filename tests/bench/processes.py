"""What the kernel knows of a process: CPU, memory, open files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def process_of(program: str, what_for: str | Path) -> int:
    """The one in whose command line both stand: a module and its configuration, a server and its address."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            command = _command(entry)
            if program in command and str(what_for) in command:
                return int(entry.name)
    raise RuntimeError(f"No process runs {program} for {what_for}.")


def processes_with(variable: str) -> Iterator[int]:
    """Those in whose environment this stands, as NAME=VALUE; nobody else's can be seen."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable.encode() in environment.read_bytes().split(b"\0"):
                yield int(environment.parent.name)


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def cpu_s(pid: int) -> float:
    """Seconds of a core that it has used, in the kernel or not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid: int, name: str = "VmRSS") -> float:
    """Resident now; VmHWM: at most until now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(kib) / 1024


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
