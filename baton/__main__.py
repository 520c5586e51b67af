"""`baton deploy`, `baton worker`, `baton api`: finds the command and hands the other arguments over to it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from baton import __version__


@dataclass(frozen=True, slots=True)
class Command:
    """One word after `baton`: the module whose `main` it is, and the extra that brings what it imports."""

    module: str
    extra: str
    summary: str


COMMANDS = {
    "deploy": Command("baton.deploy", "all", "serve a model on this machine: Redis, a gateway and workers at once"),
    "chat": Command("baton.chat", "all", "talk to a running server"),
    "batch": Command("baton.batch", "all", "have a file of requests answered, and wait for it"),
    "bench": Command("baton.bench.command", "bench", "measure how fast a running server answers"),
    "models": Command("baton.models", "all", "list the model types, or say what a directory holds"),
    "key": Command("baton.key", "api", "make an API key for --api_keys_file"),
    "doctor": Command("baton.doctor.__main__", "all", "find out what is wrong with Redis, the machine or the workers"),
    "worker": Command("worker.__main__", "worker", "run one worker"),
    "api": Command("api.__main__", "api", "run one gateway"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not given:
        parser.error("say what to do: " + ", ".join(COMMANDS))
    name = parser.parse_args(given[:1]).command
    command = COMMANDS[name]
    try:
        module = import_module(command.module)
    except ModuleNotFoundError as error:
        parser.exit(1, f"baton {name}: {error.name} is not installed: pip install 'baton[{command.extra}]'\n")
    sys.argv = [f"baton {name}", *given[1:]]
    module.main()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="baton",
        usage="baton COMMAND [options]",
        description="Serve multimodal chat models over a queue.",
        epilog="commands:\n"
        + "".join(f"  {name:8} {command.summary}\n" for name, command in COMMANDS.items())
        + "\n`baton COMMAND --help` lists a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"baton {__version__}")
    return parser


if __name__ == "__main__":
    main()
