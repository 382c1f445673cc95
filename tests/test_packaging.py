"""The wheel, built from what the Dockerfile copies and in its way, as far as that goes without Docker.

The current directory on sys.path hides what is missing from a wheel, so the services are started elsewhere.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.deploy.dockerfile import copied
from tests.deploy.manifests import ROOT

PACKAGES = ["drain_hook", "metrics_adapter", "shared"]


def pip(*arguments: str, cwd: Path) -> None:
    """Without the network: the build's requirements are installed."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    done = subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("dist")
    for path in copied():
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), ".", cwd=source)
    (wheel,) = built.glob("celery_hpa-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel's packages."""
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=target)
    return target


def run(*arguments: str, installed: Path, cwd: Path) -> str:
    """What Python prints that finds our packages in `installed` first, and nowhere near the project."""
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert sorted(top for top in tops if not top.endswith(".dist-info")) == PACKAGES
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}


def test_the_wheel_brings_its_licence(wheel: Path) -> None:
    assert [name for name in ZipFile(wheel).namelist() if name.endswith(".dist-info/licenses/LICENSE")]


@pytest.mark.parametrize("module", ["metrics_adapter", "drain_hook"])
def test_an_installed_service_says_how_it_is_used(module: str, installed: Path, tmp_path: Path) -> None:
    usage = run("-m", module, "--help", installed=installed, cwd=tmp_path)
    assert usage.startswith(f"usage: python -m {module}")
    assert "--tls-self-managed" in usage


def test_an_installed_check_says_how_it_is_used(wheel: Path, installed: Path, tmp_path: Path) -> None:
    """By the command that pip makes for it, and by its module."""
    usage = run("-m", "shared.checkup", "check", "--help", installed=installed, cwd=tmp_path)
    assert usage.startswith("usage: celery-hpa check")
    names = ZipFile(wheel).namelist()
    (entry_points,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    assert "celery-hpa = shared.checkup.command:main" in ZipFile(wheel).read(entry_points).decode()


@pytest.mark.parametrize("package", PACKAGES)
def test_it_is_the_installed_package_that_is_tested(package: str, installed: Path, tmp_path: Path) -> None:
    """The project itself is installed here, too, as an editable one."""
    where = run("-c", f"import {package}; print({package}.__file__)", installed=installed, cwd=tmp_path)
    assert Path(where.strip()) == installed / package / "__init__.py"
