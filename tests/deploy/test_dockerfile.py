"""The image: what it is made of is there, and what runs in it fits deploy/base."""

import re
import subprocess
import tomllib

from tests.deploy.dockerfile import INTERPRETER, copied, instructions, stages
from tests.deploy.manifests import ROOT, kustomization

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_everything_that_is_copied_is_there() -> None:
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_every_package_is_copied() -> None:
    """And what else the build reads: a wheel without its licence file is not built at all."""
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"]
    assert {*packages, *files} <= set(copied())


def test_what_is_copied_is_sent_to_the_builder() -> None:
    """.dockerignore shuts all else out: what lies about here never gets into an image."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(copied())


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [str(INTERPRETER / "hadolint"), "--no-color", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_environment_moves_between_images_of_one_python() -> None:
    """It holds links to the interpreter, and modules built for it."""
    images = {stage[0].rest.split()[0] for stage in stages()}
    assert images == {"${PYTHON}"}
    (default,) = [one.rest.partition("=")[2] for one in instructions() if one.word == "ARG"]
    version = re.fullmatch(r"python:3\.(\d+)-slim", default)
    assert version
    assert 11 <= int(version[1]) <= 14


def test_the_image_takes_only_the_environment_from_where_it_is_built() -> None:
    """Neither build tools nor pip nor sources."""
    built, image = stages()
    assert built[0].rest.endswith(" AS build")
    assert [one.rest for one in image if one.word in {"COPY", "ADD", "RUN"}] == [
        "--from=build /opt/celery-hpa /opt/celery-hpa"
    ]


def test_every_package_is_installed_as_it_is_locked() -> None:
    """By its hash, or else without what it depends on."""
    commands = [
        command
        for one in instructions()
        if one.word == "RUN"
        for command in one.rest.split("&&")
        if re.search(r"pip\S* (?:--python \S+ )?(?:install|wheel) ", command)
    ]
    assert len(commands) == 4
    assert all("--require-hashes" in command or "--no-deps" in command for command in commands)


def test_the_image_says_what_is_in_it() -> None:
    """In the labels of the Open Container Initiative."""
    (label,) = [one.rest for one in instructions() if one.word == "LABEL"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]+)"', label))
    assert labels.keys() == {"title", "description", "version", "licenses"}
    assert labels["title"] == PROJECT["project"]["name"]
    assert labels["version"] == PROJECT["project"]["version"]
    assert labels["licenses"] == PROJECT["project"]["license"]


def test_the_image_that_is_installed_is_of_this_version() -> None:
    (image,) = kustomization()["images"]
    assert image["newTag"] == PROJECT["project"]["version"]


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
