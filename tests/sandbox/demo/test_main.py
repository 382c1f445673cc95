"""The demo's own manners."""

from pathlib import Path

import pytest

from deploy.sandbox.demo.__main__ import main
from deploy.sandbox.demo.directory import emptied


def test_a_directory_of_somebody_else_is_not_emptied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what an earlier demo made is removed: --directory may name a home by mistake."""
    letter = tmp_path / "letter.txt"
    letter.touch()
    with pytest.raises(SystemExit) as ended:
        main(["--directory", str(tmp_path)])
    assert ended.value.code == 2
    assert "name another --directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [letter]


def test_a_second_demo_leaves_the_directory_of_the_first_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says where else to run, and the first keeps its logs."""
    with emptied(tmp_path) as directory:
        log = directory / "drain_hook.log"
        log.touch()
        with pytest.raises(SystemExit) as ended:
            main(["--directory", str(tmp_path)])
        assert log.exists()
    assert ended.value.code == 2
    assert f"--directory {tmp_path}-2" in capsys.readouterr().err
