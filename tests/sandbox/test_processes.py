"""A service's process: known to serve before it is used, and never left behind."""

import asyncio
import os
import select
import signal
import socket
import sys
from pathlib import Path

import pytest

from deploy.sandbox.cluster import ROOT
from deploy.sandbox.processes import ServiceFailed, free_port, running

SERVES = "print('it serves', flush=True)\n"
UNTIL_SIGTERM = (
    "import signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('it stops', flush=True), sys.exit(7)))\n"
)
WAITS = "import time\nwhile True: time.sleep(60)\n"
STARTS_ANOTHER = """
import asyncio, sys
from pathlib import Path
from deploy.sandbox.processes import running

async def main():
    command = [sys.executable, "-c", sys.argv[2]]
    async with running(command, log=Path(sys.argv[1]), ready="it serves") as process:
        print(process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


def said(log: Path) -> str:
    return log.read_text()


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


async def test_a_process_is_there_from_when_it_serves_and_is_asked_to_stop(log: Path) -> None:
    async with running(python(UNTIL_SIGTERM + SERVES + WAITS), log=log, ready="it serves") as process:
        assert process.returncode is None
        assert said(log) == "it serves\n"
    assert process.returncode == 7
    assert said(log) == "it serves\nit stops\n"


async def test_a_process_is_stopped_when_its_user_fails(log: Path) -> None:
    command = python(UNTIL_SIGTERM + SERVES + WAITS)
    with pytest.raises(LookupError):
        async with running(command, log=log, ready="it serves") as process:
            raise LookupError
    assert process.returncode == 7


async def test_a_process_that_ended_by_itself_is_let_be(log: Path) -> None:
    async with running(python(SERVES), log=log, ready="it serves") as process:
        assert await process.wait() == 0
    assert process.returncode == 0


async def test_a_process_that_ends_before_it_serves_has_failed(log: Path) -> None:
    """The end of what it said is told, with stderr: it is all there is to go by."""
    with pytest.raises(ServiceFailed, match=r"(?s)service ended with 3:.*pools: write a list"):
        async with running(
            python("import sys\nprint('pools: write a list', file=sys.stderr)\nsys.exit(3)"),
            log=log,
            ready="it serves",
        ):
            pytest.fail("it never served")


async def test_a_process_that_does_not_serve_in_time_is_stopped(log: Path) -> None:
    with pytest.raises(ServiceFailed, match="did not serve within 1 s"):
        async with running(["sh", "-c", "echo $$; exec sleep 60"], log=log, ready="it serves", timeout_s=1.0):
            pytest.fail("it never served")
    with pytest.raises(ProcessLookupError):
        os.kill(int(said(log)), 0)


async def test_a_process_gets_what_its_environment_is_to_have_besides_ours(log: Path) -> None:
    source = "import os\nprint(os.environ['PATH'] != '', os.environ['COLOUR'])\n" + SERVES + WAITS
    async with running(python(source), log=log, ready="it serves", environment={"COLOUR": "green"}):
        assert said(log).startswith("True green\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
async def test_a_process_ends_with_its_parent_however_that_ends(log: Path) -> None:
    """Even when the demo is killed with SIGKILL, nothing of it goes on running."""
    parent = await asyncio.create_subprocess_exec(
        *python(STARTS_ANOTHER),
        *(str(log), SERVES + WAITS),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(await parent.stdout.readline()))
    try:
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
        ended, _, _ = await asyncio.to_thread(select.select, [child], [], [], 20)
        assert ended == [child]
    finally:
        os.close(child)


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        assert listener.getsockname()[1] > 1023
