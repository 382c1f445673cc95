"""The crowd that stands for many workers answers as they would, and the table says what was measured."""

import sys
from pathlib import Path

from deploy.sandbox.cluster import broker
from deploy.sandbox.processes import running
from shared.celery_control import CeleryControl
from tests.bench.resources import Usage, table


async def test_every_worker_of_the_crowd_answers_whatever_it_is_asked(tmp_path: Path) -> None:
    names = [f"celery@worker-{number}" for number in range(20)]
    async with broker(tmp_path) as url:
        command = [sys.executable, "-m", "tests.bench.crowd", url, "bench"]
        async with running(command, log=tmp_path / "crowd.log", ready="The crowd listens."):
            control = CeleryControl(url)
            try:
                fleet = await control.inspect(names, timeout_s=20)
                software = await control.software(names, timeout_s=20)
                await control.cancel_consumers({names[0]: ["bench"]}, timeout_s=20)
                consumed = await control.active_queues(names[:2], timeout_s=20)
            finally:
                await control.close()
    assert fleet.workers.keys() == software.keys() == set(names)
    assert not fleet.silent
    for worker in fleet.workers.values():
        assert (len(worker.active), worker.queues) == (2, {"bench"})
    assert consumed == {names[0]: frozenset(), names[1]: {"bench"}}


def test_the_table_has_a_line_for_each_service_and_fleet() -> None:
    usage = Usage(cpu=0.0421, memory_mib=86.4, peak_mib=90.0)
    lines = table({3: {"drain_hook": usage}, 200: {"drain_hook": usage}})
    assert [line.split()[-3:] for line in lines[1:]] == [["42", "86", "90"]] * 2
    assert [line.split(",")[1].split()[0] for line in lines[1:]] == ["3", "200"]
