import subprocess

import pytest

from baton import __version__
from tests.baton.deployed import BATON, without_settings


def baton(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BATON, *arguments], env=without_settings(), capture_output=True, text=True)


def test_help_names_every_command() -> None:
    shown = baton("--help")

    assert shown.returncode == 0
    commands = ("deploy", "chat", "batch", "bench", "models", "key", "doctor", "worker", "api")
    assert all(f"\n  {command} " in shown.stdout for command in commands)


def test_version_is_the_distributions() -> None:
    assert baton("--version").stdout == f"baton {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("depoly",),
            "'depoly' (choose from 'deploy', 'chat', 'batch', 'bench', 'models', 'key', 'doctor', 'worker', 'api')",
        ),
        ((), "say what to"),
    ],
)
def test_wrong_command_is_told(arguments: tuple[str, ...], message: str) -> None:
    shown = baton(*arguments)

    assert shown.returncode == 2
    assert message in shown.stderr


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("deploy", ["--workers", "--max_num_seqs", "--host"]),
        ("chat", ["--base_url", "/image PATH"]),
        ("batch", ["--batch_id", "--output"]),
        ("bench", ["--request_rate", "--goodput", "BATON_BASE_URL"]),
        ("worker", ["--max_num_seqs"]),
        ("api", ["--host"]),
    ],
)
def test_command_lists_its_own_options(command: str, options: list[str]) -> None:
    shown = baton(command, "--help")

    assert shown.stdout.startswith(f"usage: baton {command} ")
    assert all(option in shown.stdout for option in options)


@pytest.mark.parametrize("command", ["deploy", "chat", "batch -o out.jsonl", "bench", "worker", "api"])
def test_wrong_option_is_told(command: str) -> None:
    shown = baton(*command.split(), "--prot=8000")

    assert shown.returncode == 2
    assert "unrecognized arguments: --prot=8000" in shown.stderr
