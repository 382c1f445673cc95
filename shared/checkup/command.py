"""The command line of `celery-hpa`."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.brokers import Brokers
from shared.celery_control import CeleryControl
from shared.checkup.broker_look import ASK_TIMEOUT_S, BrokerLook, Control
from shared.checkup.camera import take_picture
from shared.checkup.checks import check
from shared.checkup.cluster_look import ClusterLook
from shared.checkup.database_look import DatabaseLook
from shared.checkup.findings import Finding
from shared.checkup.report import as_json, as_text, exit_code
from shared.errors import ConfigurationError
from shared.kube_client import KubeClient
from shared.logs import configure_logging
from shared.settings import broker_url_of, database_url_of, read_configuration

USAGE = 2
DESCRIPTION = (
    "Says what is missing or wrong in a cluster, one line each with what to do. It changes nothing: of every "
    "pool it asks for a scale-down by one as a dry run. Exits with 0 when all is good, 1 when there is "
    "something to do, 2 when it cannot be run so."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line of `celery-hpa check`."""

    config: Path
    kubeconfig: str | None = None
    """None: the service account of the pod."""
    context: str | None = None
    namespace: str = "celery-hpa"
    timeout_s: float = ASK_TIMEOUT_S
    """How long a broker and its workers may take for one answer."""
    output: Literal["text", "json"] = "text"


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(argv)
    # The findings say what there is to say.
    configure_logging(log_format="text", level="error")
    try:
        findings = asyncio.run(run_check(options))
    except ConfigurationError as error:
        print("\n".join(map(str, error.mistakes)), file=sys.stderr)
        return USAGE
    print(as_json(findings) if options.output == "json" else as_text(findings))
    return exit_code(findings)


async def run_check(options: Options) -> tuple[Finding, ...]:
    """Look, and say what was seen. Raises ConfigurationError for a file that cannot be used."""
    pools = read_configuration(options.config).pools
    async with KubeClient.connect(options.kubeconfig, context=options.context) as kube:
        brokers = Brokers[Control](broker_url_of, connect=CeleryControl)
        try:
            picture = await take_picture(
                ClusterLook(kube),
                BrokerLook(brokers, url_of=broker_url_of, timeout_s=options.timeout_s),
                DatabaseLook(url_of=database_url_of, timeout_s=options.timeout_s),
                pools=pools,
                namespace=options.namespace,
            )
        finally:
            await brokers.keep_only(())
    return check(picture)


def parse_options(argv: Sequence[str] | None, *, environment: Mapping[str, str] = os.environ) -> Options:
    """The options of a command line; a wrong one prints what would be right and exits with 2."""
    parser = argparse.ArgumentParser(prog="celery-hpa", description="Looks after celery-hpa in a cluster.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("check", help="say what is missing or wrong", description=DESCRIPTION)
    add = command.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="the pools, as both services read them")
    add(
        "--kubeconfig",
        default=_default_kubeconfig(environment),
        metavar="FILE",
        help="how to reach Kubernetes (as kubectl does, or by the pod's service account)",
    )
    add("--context", metavar="NAME", help="a context of the kubeconfig (its current one)")
    add("--namespace", default="celery-hpa", metavar="NAME", help="where both services are (%(default)s)")
    add(
        "--timeout",
        dest="timeout_s",
        type=_seconds,
        default=ASK_TIMEOUT_S,
        metavar="SECONDS",
        help="how long brokers and workers are waited for (%(default)g)",
    )
    add("-o", "--output", choices=("text", "json"), default="text", help="(%(default)s)")
    return Options(**vars(parser.parse_args(argv)))


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError("write a number of seconds above 0")


def _default_kubeconfig(environment: Mapping[str, str]) -> str | None:
    """As kubectl: $KUBECONFIG, then the home directory's; in a pod without either its service account."""
    if named := environment.get("KUBECONFIG"):
        return named
    usual = Path(environment.get("HOME", "/")) / ".kube" / "config"
    return str(usual) if usual.exists() else None
