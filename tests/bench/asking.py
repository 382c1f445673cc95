"""`python -m tests.bench.asking URL DIRECTORY CODE SECONDS`: ask 100 times a second, as the front proxy.

Until a value is answered with CODE, and SECONDS more; then print every answer. A process of its own, so that
nothing else makes it late.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from deploy.sandbox import manifests
from deploy.sandbox.control_plane import FRONT_PROXY
from shared.certificates import KeyPair
from tests.metrics_adapter.aggregator import Aggregator, Question
from tests.metrics_adapter.api_server import GROUP, HPA

PATIENCE_S = 60.0
ADAPTER_CA = "adapter-ca.crt"
VALUES = Question(f"{GROUP}/namespaces/{manifests.NAMESPACE}/celery_demand", HPA)
OTHERS = (
    Question(GROUP, [("X-Remote-User", "system:kube-aggregator"), ("X-Remote-Group", "system:masters")]),
    Question("/openapi/v2", [("X-Remote-User", "system:aggregator")]),
    Question("/readyz"),
)
MIX = (*(VALUES,) * 7, *OTHERS)


async def ask(url: str, directory: Path, code: int, seconds: float) -> Aggregator:
    pki = directory / "pki" / FRONT_PROXY
    certificate = KeyPair(
        certificate_pem=pki.with_suffix(".crt").read_bytes(), key_pem=pki.with_suffix(".key").read_bytes()
    )
    cas = (directory / ADAPTER_CA).read_bytes()
    async with Aggregator(url=url, directory=directory, cas=cas, certificate=certificate) as aggregator:
        async with aggregator.asking(MIX, keeps_connections=True):
            await _until(aggregator, code)
            await asyncio.sleep(seconds)
        return aggregator


async def _until(aggregator: Aggregator, code: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if (await aggregator.ask(VALUES)).code == code:
                return
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asked = asyncio.run(ask(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    print(json.dumps({"answers": [answer[:3] for answer in asked.answers], "late": asked.late}))
