"""What those who stay are told."""

from pathlib import Path

from deploy.sandbox.demo.hints import hints


def test_every_command_can_be_copied_as_it_stands() -> None:
    """Each path is whole: the other terminal is in another directory, without the virtual environment."""
    lines = hints(
        kubeconfig=Path("/demo/kubeconfig"),
        directory=Path("/demo"),
        broker_url="redis://127.0.0.1:7000/0",
        python="/venv/bin/python",
        root=Path("/project"),
    )
    commands = [line.strip() for line in lines if line.startswith("  ")]
    assert commands[0] == "export KUBECONFIG=/demo/kubeconfig"
    assert all(command.startswith(("export", "kubectl", "for")) for command in commands)
    (burst,) = [command for command in commands if command.startswith("for")]
    assert "/venv/bin/python -m celery --workdir /project" in burst
    assert "-b redis://127.0.0.1:7000/0" in burst
