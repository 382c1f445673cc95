"""The command line, and the doors that only the check has."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.sandbox.processes import free_port
from shared.certificates import KeyPair, make_ca, make_leaf, save_key_pair
from shared.checkup.command import main, parse_options
from shared.checkup.served_certificate import tls_problem
from tests.shared.kubernetes_stages import sandbox_stage

NAME = "drain-hook.celery-hpa.svc"


def test_kubernetes_is_found_as_kubectl_finds_it(tmp_path: Path) -> None:
    def kubeconfig(*arguments: str, **environment: str) -> str | None:
        return parse_options(["check", "--config", "c", *arguments], environment=environment).kubeconfig

    assert kubeconfig(HOME=str(tmp_path)) is None
    usual = tmp_path / ".kube" / "config"
    usual.parent.mkdir()
    usual.touch()
    assert kubeconfig(HOME=str(tmp_path)) == str(usual)
    assert kubeconfig(HOME=str(tmp_path), KUBECONFIG="named") == "named"
    assert kubeconfig("--kubeconfig", "said", KUBECONFIG="named") == "said"


@pytest.mark.parametrize("arguments", [[], ["chek"], ["check"], ["check", "--config", "c", "--timeout", "0"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_options(arguments, environment={})
    assert caught.value.code == 2
    assert "usage: celery-hpa" in capsys.readouterr().err


def test_a_file_with_mistakes_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("pools: []\nrefresh: never")
    assert main(["check", "--config", str(file), "--kubeconfig", "nowhere"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert {line.partition(":")[0] for line in said.err.splitlines()} == {"pools", "refresh"}


@asynccontextmanager
async def server(ca: KeyPair, directory: Path, *, name: str = NAME) -> AsyncIterator[int]:
    """Serves with a certificate of `ca` for `name`; yields its port."""
    files = {"certificate_file": directory / "crt", "key_file": directory / "key"}
    save_key_pair(make_leaf(ca, common_name=name, names=(name,)), **files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate_file"], files["key_file"])

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context) as serving:
        yield serving.sockets[0].getsockname()[1]


async def test_a_certificate_fits_the_ca_that_signed_it(tmp_path: Path) -> None:
    """Whatever address it is dialled at: the API server, too, asks for the name of the Service."""
    ca, other = make_ca("one"), make_ca("other")
    async with server(ca, tmp_path) as port:

        async def problem(ca_pem: bytes, name: str = NAME) -> str | None:
            return await tls_problem("127.0.0.1", port, server_name=name, ca_pem=ca_pem)

        assert await problem(ca.certificate_pem) == ""
        assert await problem(other.certificate_pem + ca.certificate_pem) == ""
        assert "issuer" in (await problem(other.certificate_pem) or "")
        assert "mismatch" in (await problem(ca.certificate_pem, "another.svc") or "")
        assert "no certificates" in (await problem(b"rubbish") or "")


async def test_what_cannot_be_dialled_is_not_known() -> None:
    ca = make_ca("one").certificate_pem
    assert await tls_problem("127.0.0.1", free_port(), server_name=NAME, ca_pem=ca) is None


async def test_a_rehearsed_scale_changes_nothing(tmp_path: Path) -> None:
    async with sandbox_stage(tmp_path) as stage:
        await stage.add_workload(replicas=2)
        where = {"kind": "Deployment", "namespace": "default", "name": "worker"}
        assert await stage.kube.rehearse_scale(**where, replicas=1) == ()
        assert (await stage.kube.workload(**where)).replicas == 2
        document = await stage.kube.read("/apis/apps/v1/namespaces/default/deployments/worker")
        assert document["spec"]["replicas"] == 2
