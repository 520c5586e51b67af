"""`baton chat`: a conversation with a running server, in the terminal or through a pipe."""

import argparse
import os
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

from baton.client.answer import ChatCompletionStreamResponse, ModelList
from baton.client.endpoint import Endpoint, endpoint_of
from baton.client.exchange import encode, fetch, stream
from baton.client.request import Message, RequestConfig, options
from baton.conversation import Conversation
from baton.terminal import Terminal

API_KEY_VARIABLE = "BATON_API_KEY"
INTERRUPTED = 130
"""The exit status that shells give a program ended by Ctrl-C."""

MEDIA = ("image", "audio", "video")
HELP = """\
/image PATH|URL   show a picture with the next question; /audio and /video likewise
/system [TEXT]    set the system prompt, or show it
/clear            forget the conversation
/exit             leave, as Ctrl-D does
A line that ends in a backslash goes on in the next one. Ctrl-C stops an answer."""


def main() -> None:
    """Talk until the input ends; the exit status is 1 if there was nobody to talk to or a question failed."""
    terminal = Terminal()
    given = _parser().parse_args([_underscored(argument) for argument in sys.argv[1:]])
    try:
        sys.exit(_talk(given, terminal))
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError):  # nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            terminal.error(f"baton chat: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


class Chat:
    """One conversation with one model."""

    def __init__(
        self, endpoint: Endpoint, model: str, config: RequestConfig, system: str | None, terminal: Terminal
    ) -> None:
        self.has_failed = False
        self._endpoint = endpoint
        self._model = model
        self._config = config
        self._terminal = terminal
        self._conversation = Conversation(system)
        self._commands: dict[str, Callable[[str], None]] = {
            **{kind: self._attacher(kind) for kind in MEDIA},
            "system": self._set_system,
            "clear": self._clear,
            "help": lambda _: terminal.note(HELP),
        }

    def run(self) -> None:
        """Answer everything that is typed, until the input ends or /exit."""
        for text in self._terminal.texts():
            if text == "/exit":
                return
            if text.startswith("/"):
                self._obey(*text[1:].partition(" ")[::2])
            elif text:
                self._answer(text)

    def _obey(self, command: str, argument: str) -> None:
        if command not in self._commands:
            self._fail(f"there is no command /{command}; /help lists them")
            return
        try:
            self._commands[command](argument.strip())
        except OSError as error:
            self._fail(f"/{command}: {error}")

    def _answer(self, text: str) -> None:
        """Show the answer as it comes; one that was stopped counts as far as it came."""
        said: list[str] = []
        try:
            with closing(self._chunks(self._conversation.ask(text))) as chunks:
                for chunk in chunks:
                    said += [choice.delta.content for choice in chunk.choices]
                    self._terminal.write("".join(choice.delta.content for choice in chunk.choices))
        except BrokenPipeError:
            raise
        except OSError as error:
            self._terminal.write("\n" if said else "")
            self._fail(str(error))
        except KeyboardInterrupt:
            self._terminal.write("\n")
            if not self._terminal.is_interactive:
                raise
            self._terminal.note("stopped")
        else:
            self._terminal.write("\n")
        self._conversation.answer("".join(said))

    def _chunks(self, messages: list[Message]) -> Generator[ChatCompletionStreamResponse]:
        body = encode(options(self._config) | {"model": self._model, "messages": messages})
        return stream(self._endpoint, "chat/completions", body, ChatCompletionStreamResponse)

    def _attacher(self, kind: str) -> Callable[[str], None]:
        def attach(address: str) -> None:
            address = address.strip("'\"")
            is_url = "://" in address[:8] or address.startswith("data:")
            path = Path(address).expanduser()
            if not is_url and not path.is_file():
                raise FileNotFoundError(f"there is no file {path}" if address else "name a file or a URL")
            self._conversation.attach(kind, address if is_url else str(path))
            self._terminal.note(f"{address} goes with the next question")

        return attach

    def _set_system(self, text: str) -> None:
        if text:
            self._conversation.system = text
        self._terminal.note(f"system: {self._conversation.system or 'the default of the model'}")

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._terminal.note("a new conversation")

    def _fail(self, words: str) -> None:
        self.has_failed = True
        self._terminal.error(words)


def _talk(given: argparse.Namespace, terminal: Terminal) -> int:
    endpoint = endpoint_of(given.host, given.port, given.api_key, given.base_url)
    names = ("temperature", "top_p", "top_k", "max_tokens", "seed")
    config = RequestConfig(stream=True, **{name: getattr(given, name) for name in names})
    model = given.model or _only_model(endpoint)
    chat = Chat(endpoint, model, config, given.system, terminal)
    terminal.note(f"{model} at {endpoint.url}; /help lists the commands, Ctrl-D leaves")
    chat.run()
    return 1 if chat.has_failed and not terminal.is_interactive else 0


def _only_model(endpoint: Endpoint) -> str:
    names = [model.id for model in fetch(endpoint, "models", ModelList).data]
    if len(names) != 1:
        raise ValueError(f"name a model with --model; the server has {', '.join(names) or 'none that is ready'}")
    return names[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Talk to a running server.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the server is [127.0.0.1]")
    parser.add_argument("--port", type=int, default=8000, help="[8000]")
    parser.add_argument("--base_url", help="both in one, as http://127.0.0.1:8000/v1")
    parser.add_argument("--api_key", default=os.environ.get(API_KEY_VARIABLE), help=f"or {API_KEY_VARIABLE}")
    parser.add_argument("--model", help="needed if the server has several")
    parser.add_argument("--system", help="system prompt in place of the model's own")
    for name, kind in {"temperature": float, "top_p": float, "top_k": int, "max_tokens": int, "seed": int}.items():
        parser.add_argument(f"--{name}", type=kind, help="the model's own default, if unset")
    return parser


def _underscored(argument: str) -> str:
    """`--base-url=a-b` → `--base_url=a-b`, as the other commands take it."""
    name, separator, value = argument.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + separator + value if name.startswith("--") else argument
