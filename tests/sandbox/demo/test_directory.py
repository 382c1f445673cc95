"""A demo's directory: emptied of what the demo made, and of nothing else."""

from pathlib import Path

import pytest

from deploy.sandbox.demo.directory import MADE_HERE, DirectoryTaken, emptied


def test_it_is_made(tmp_path: Path) -> None:
    with emptied(tmp_path / "out" / "demo") as directory:
        assert directory.is_dir()


def test_what_an_earlier_demo_left_is_removed(tmp_path: Path) -> None:
    """Logs would be read as those of the new demo; what a link points to is somebody else's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with emptied(tmp_path / "demo") as directory:
        (directory / "pods").mkdir()
        (directory / "pods" / "worker.log").touch()
        (directory / "drain_hook.log").touch()
        (directory / "link").symlink_to(outside)
    with emptied(tmp_path / "demo") as directory:
        assert [path.name for path in directory.iterdir()] == [MADE_HERE]
    assert outside.is_dir()


def test_it_is_held_until_the_end_and_not_longer(tmp_path: Path) -> None:
    with emptied(tmp_path), pytest.raises(DirectoryTaken, match="Another demo is running"), emptied(tmp_path):
        pytest.fail("two demos share a directory")
    with emptied(tmp_path) as directory:
        assert directory == tmp_path
