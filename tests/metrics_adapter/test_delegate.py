"""The door to another provider, over real TLS."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metrics_adapter.delegate import connect
from metrics_adapter.delegate_answers import MOST_BYTES, MOST_BYTES_OF_DISCOVERY, Answer, NoAnswer
from shared.certificates import KeyPair, make_ca
from tests.metrics_adapter.provider import (
    GROUP,
    RESOURCES,
    TOKEN,
    VALUES,
    SecondProvider,
    no_token,
    status,
    to,
)


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return make_ca("their CA")


@pytest.fixture
async def provider(ca: KeyPair, tmp_path: Path) -> AsyncIterator[SecondProvider]:
    other = SecondProvider(ca=ca, directory=tmp_path)
    async with other.running():
        yield other


async def values(provider: SecondProvider, metric: str = "queue_depth", **fields: Any) -> Answer:
    async with to(provider.delegate(**fields)) as door:
        answer: Answer = await door.values(namespace="default", metric=metric, selector="")
        return answer


async def test_it_is_asked_as_ourselves_for_json(provider: SecondProvider) -> None:
    async with to(provider.delegate()) as door:
        answer = await door.values(namespace="default", metric="s0-kafka", selector="a=b,c in (x,y)")
    assert json.loads(answer.body) == VALUES
    ((path, headers),) = provider.asked
    assert path == f"{GROUP}/namespaces/default/s0-kafka?labelSelector=a%3Db%2Cc+in+%28x%2Cy%29"
    assert (headers["Authorization"], headers["Accept"]) == (TOKEN, "application/json")
    assert not [name for name in headers if name.startswith("X-Remote")]


async def test_without_a_token_we_are_anonymous(provider: SecondProvider) -> None:
    async with connect(provider.delegate(), authorization=no_token) as door:
        await door.values(namespace="default", metric="queue_depth", selector="")
    assert "Authorization" not in provider.asked[0][1]


async def test_odd_names_arrive_as_they_are(provider: SecondProvider) -> None:
    await values(provider, "datadogmetric@default:hits|ü")
    assert provider.asked[0][0].endswith("/datadogmetric%40default%3Ahits%7C%C3%BC")


async def test_its_errors_come_back(provider: SecondProvider) -> None:
    provider.reply, provider.code = status(404, "NotFound", "no such metric"), 404
    assert (await values(provider)).code == 404


async def test_its_discovery_is_read(provider: SecondProvider) -> None:
    async with to(provider.delegate()) as door:
        assert await door.names() == ("queue_depth",)
        provider.resources = RESOURCES | {"resources": [{"name": "another"}]}
        assert await door.names() == ("another",)
        provider.resources = b" " * (MOST_BYTES_OF_DISCOVERY + 1)
        with pytest.raises(NoAnswer, match="more than 1024 KiB"):
            await door.names()


async def test_one_that_is_slow_has_its_own_time(provider: SecondProvider) -> None:
    provider.is_stuck = True
    with pytest.raises(NoAnswer, match=r"did not answer within 0\.05 s"):
        await values(provider, timeout=0.05)


async def test_one_that_is_down_is_no_answer(provider: SecondProvider) -> None:
    with pytest.raises(NoAnswer, match="cannot be asked"):
        await values(provider, port=1)


async def test_a_huge_answer_is_not_read_to_its_end(provider: SecondProvider) -> None:
    provider.reply = b" " * (MOST_BYTES + 1)
    with pytest.raises(NoAnswer, match="more than 256 KiB"):
        await values(provider)


async def test_what_it_compresses_stays_compressed(provider: SecondProvider) -> None:
    """We ask for nothing of the kind: a few bytes could become gigabytes."""
    provider.reply = gzip.compress(json.dumps(VALUES).encode())
    provider.extra_headers = {"Content-Encoding": "gzip"}
    with pytest.raises(NoAnswer, match="no JSON"):
        await values(provider)


async def test_a_redirect_is_not_followed(provider: SecondProvider) -> None:
    """Our token would go with it."""
    provider.code, provider.extra_headers = 307, {"Location": f"https://127.0.0.1:{provider.port}/elsewhere"}
    with pytest.raises(NoAnswer):
        await values(provider)
    assert len(provider.asked) == 1


async def test_a_certificate_of_another_ca_is_not_believed(provider: SecondProvider) -> None:
    with pytest.raises(NoAnswer, match="cannot be asked"):
        await values(provider, ca=make_ca("another").certificate_pem.decode())
    assert provider.asked == []


async def test_a_certificate_for_another_service_is_not_believed(ca: KeyPair, tmp_path: Path) -> None:
    other = SecondProvider(ca=ca, directory=tmp_path, host="localhost")
    async with other.running():
        with pytest.raises(NoAnswer, match="cannot be asked"):
            await values(other)
        assert (await values(other, insecureSkipTLSVerify=True)).code == 200


@pytest.mark.parametrize("content", [None, "no PEM", "\x00"])
async def test_a_ca_file_that_cannot_be_used_is_no_answer(
    provider: SecondProvider, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NoAnswer, match="cannot be asked"):
        await values(provider, caFile=str(file))


async def test_a_ca_file_may_change(provider: SecondProvider, ca: KeyPair, tmp_path: Path) -> None:
    """It is read again with discovery; requests never wait for a file."""
    file, new_ca = tmp_path / "ca.crt", make_ca("their new CA")
    file.write_bytes(ca.certificate_pem)
    async with to(provider.delegate(caFile=str(file))) as door:
        await door.names()
        provider.serve_under(new_ca)
        file.write_bytes(new_ca.certificate_pem)
        assert await door.names() == ("queue_depth",)
        assert (await door.values(namespace="a", metric="b", selector="")).code == 200
