"""What the benchmarks of the adapter ask, and what they make of the answers."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from pathlib import Path

from aiohttp import web

from shared.certificates import make_ca, make_leaf, save_key_pair
from tests.bench.asker import AUDIT_ID, Answers, Asker, Errand
from tests.bench.soak import Sample, targets_of


async def test_every_request_is_answered_and_no_two_are_alike(tmp_path: Path) -> None:
    """At a rate, on several connections, with the certificate that it was given."""
    seen: list[tuple[str, str, bool]] = []

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        presents = bool(request.transport.get_extra_info("peercert"))
        seen.append((request.headers[AUDIT_ID], request.headers["X-Remote-User"], presents))
        return web.Response(text="yes", status=200 if len(seen) % 2 else 503)

    ca = make_ca("bench")
    certificate, key = tmp_path / "a.crt", tmp_path / "a.key"
    leaf = make_leaf(ca, common_name="localhost", addresses=("127.0.0.1",))
    save_key_pair(leaf, certificate_file=certificate, key_file=key)
    client, client_key = tmp_path / "c.crt", tmp_path / "c.key"
    save_key_pair(
        make_leaf(ca, common_name="c", is_client=True), certificate_file=client, key_file=client_key
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca.certificate_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    errand = Errand(
        port=runner.addresses[0][1],
        ca_pem=ca.certificate_pem.decode(),
        certificate_file=str(client),
        key_file=str(client_key),
        path="/x",
        headers=[("X-Remote-User", "hpa"), (AUDIT_ID, "of the recording")],
        connections=3,
        seconds=0.5,
        rate=100.0,
    )
    try:
        answers = await asyncio.to_thread(Asker(errand).run)
    finally:
        await runner.cleanup()
    assert len({audit_id for audit_id, _, _ in seen}) == len(seen)
    assert answers.sent - errand.connections <= len(seen) <= answers.sent
    assert {(user, presents) for _, user, presents in seen} == {("hpa", True)}
    assert answers.statuses.keys() == {"200", "503"}


def test_the_p99_is_what_one_in_a_hundred_exceeds() -> None:
    latencies = [number / 1000 for number in range(101)]
    answers = Answers.of(latencies, statuses=Counter({"200": 101}), seconds=2.0, sent=120)
    assert (answers.p50_ms, answers.p99_ms, answers.slowest_ms) == (50.0, 99.0, 100.0)
    assert answers.per_second == 50.5


def sample(module: str, *, memory_mib: float = 80.0, files: int = 20) -> Sample:
    return Sample(module=module, at=0.0, memory_mib=memory_mib, files=files, threads=4, tasks=9.0, keys=3)


def test_what_grows_after_the_first_third_is_a_failure() -> None:
    """A service that has just begun still grows to its size."""
    steady = [sample("metrics_adapter", memory_mib=mib) for mib in (60, 70, 80, 80, 81, 81, 81, 82, 81)]
    leaking = [sample("drain_hook", files=files) for files in range(20, 110, 10)]
    missed = [target for target in targets_of([*steady, *leaking]) if not target.is_met]
    assert [(target.what, target.measured) for target in missed] == [("drain_hook: more open files", 30)]
    assert all(target.is_met for target in targets_of([*steady, *(sample("drain_hook") for _ in range(9))]))
