"""The image: what it is made of is there, and what runs in it fits deploy/base."""

import re
import tomllib

from tests.deploy.dockerfile import copied, instructions
from tests.deploy.manifests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_everything_that_is_copied_is_there() -> None:
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_every_package_is_copied() -> None:
    """And what else the build reads: a wheel without its licence file is not built at all."""
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"]
    assert {*packages, *files} <= set(copied())


def test_the_environment_moves_between_images_of_one_python() -> None:
    """It holds links to the interpreter, and modules built for it."""
    images = {one.rest.split()[0] for one in instructions() if one.word == "FROM"}
    (image,) = images
    version = re.match(r"python:3\.(\d+)", image)
    assert version
    assert 11 <= int(version[1]) <= 14


def test_the_user_is_a_number_and_not_root() -> None:
    """runAsNonRoot: the kubelet cannot tell of a name whether it is root's."""
    (user,) = [one.rest for one in instructions() if one.word == "USER"]
    assert all(part.isdecimal() and part != "0" for part in user.split(":"))


def test_the_lock_file_names_every_dependency_with_hashes() -> None:
    """--require-hashes and --no-deps install nothing else."""
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)(?:\[[a-z]+\])?==", lock, flags=re.MULTILINE))
    wanted = {re.split(r"[\[>=<]", one, maxsplit=1)[0].lower() for one in PROJECT["project"]["dependencies"]}
    assert wanted <= locked
    assert all(
        "--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    )
