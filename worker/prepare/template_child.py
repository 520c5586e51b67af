"""The process that runs chat templates: `python -m worker.prepare.template_child SOCKET FILE MEMORY TIMEOUT`.

transformers' own sandbox keeps a template from everything but its variables; what it costs is bounded by this process.
"""

import socket
import sys

import msgspec
from jinja2.meta import find_undeclared_variables
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

from worker.prepare.channel import Channel, Ready
from worker.prepare.confinement import give_up, limit_cpu
from worker.prepare.template import Conversation, Read, Refused, Said, Write

MAX_CONTENT_BYTES = 2**30
MAX_REASON_LENGTH = 300


def main() -> None:
    """Answer one task after the other until the worker closes the socket."""
    number, memory, memory_bytes, timeout_s = sys.argv[1:]
    channel = Channel(socket.socket(fileno=int(number)), int(memory))
    _open_what_is_opened_late()
    give_up(int(memory_bytes))
    channel.send(Ready())
    while True:
        try:
            task, content = channel.receive(Write | Read, MAX_CONTENT_BYTES)
        except ConnectionResetError:
            return
        limit_cpu(float(timeout_s))
        answer, payload = _answer(task, bytes(content))
        channel.send(answer, payload)


def _open_what_is_opened_late() -> None:
    """Let jinja2 say an error, and the clock find its time zone."""
    for template in ("{{ strftime_now('%c') }}", "{{ raise_exception('now') }}"):
        _answer(Write(MAX_REASON_LENGTH), msgspec.msgpack.encode(Conversation(template, [{}], {})))


def _answer(task: Write | Read, content: bytes) -> tuple[Said | Refused, bytes]:
    try:
        match task:
            case Write():
                text = _write(msgspec.msgpack.decode(content, type=Conversation), task.max_length)
                return Said(), text.encode()
            case Read():
                return Said(), msgspec.msgpack.encode(_read(content.decode()))
    except MemoryError:
        return Refused("the model's template takes too much memory over this conversation"), b""
    except Exception as error:  # noqa: BLE001  a template may raise whatever Python can
        reason = str(error)[:MAX_REASON_LENGTH]
        return Refused(f"the model's template refuses the conversation: {reason}"), b""


def _write(conversation: Conversation, max_length: int) -> str:
    rendered, _ = render_jinja_template(
        [conversation.turns], chat_template=conversation.template, **conversation.variables
    )
    text: str = rendered[0]
    if len(text) > max_length:
        raise ValueError(f"it writes a prompt of {len(text)} characters, and at most {max_length} can be read")
    return text


def _read(template: str) -> list[str]:
    environment = _compile_jinja_template(template).environment
    return sorted(find_undeclared_variables(environment.parse(template)) - environment.globals.keys())


if __name__ == "__main__":
    main()
