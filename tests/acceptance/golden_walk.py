"""The golden checkpoints with their adapters beside them, all behind one gateway; a worker starts when it is needed."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from openai import OpenAI

from tests.acceptance.conftest import QuietFiles, Stack
from tests.cases import GOLDEN

ADAPTERS = {"yi-vl-6b-chat": ("adapter", "adapter_all")}
OPTIONS = {"minicpm-v-v2_5-chat": ("--max_model_len", "2048"), "minicpm-v-v2_6-chat": ("--max_model_len", "2048")}


@dataclass(frozen=True)
class Walk:
    """One golden model as the official client meets it, and where its media lie."""

    stack: Stack
    client: OpenAI
    media_url: str
    model: str

    def ask(self, case, **more):
        """Send the case as an OpenAI client does; return what the client makes of the answer."""
        asked = {
            "model": f"{self.model}:{case.facts['adapter']}" if case.facts["adapter"] else self.model,
            "max_tokens": case.facts["max_new_tokens"],
            "temperature": 0,
            "messages": [with_urls(message, self.media_url) for message in case.facts["messages"]],
        }
        if wishes := case.facts.get("chat_options"):
            asked["extra_body"] = {"mm_processor_kwargs": wishes}
        return self.client.chat.completions.create(**asked | more)

    def stream(self, case):
        """Return the streamed answer's text, its finish reason and its number of tokens."""
        chunks = list(self.ask(case, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return text, chunks[-2].choices[0].finish_reason, chunks[-1].usage.completion_tokens


class GoldenFleet:
    """Created and ended by the session; each model has one worker, adapters included."""

    def __init__(self, stack: Stack, media_url: str) -> None:
        self.stack = stack
        self.media_url = media_url
        self.client = stack.client()
        self._started: set[str] = set()

    def start(self, *models: str) -> None:
        """Start what doesn't run yet, and wait until all of them can be asked."""
        for model in models:
            if model not in self._started:
                self._started.add(model)
                self._start(model)
        self.stack.wait_for_models(*(name for model in models for name in ids_of(model)))

    def walk(self, model: str) -> Walk:
        """Return the way to a model that runs."""
        self.start(model)
        return Walk(self.stack, self.client, f"{self.media_url}/{model}/media", model)

    def _start(self, model: str) -> None:
        adapters = [f"{model}:{name}={GOLDEN / model / name}" for name in ADAPTERS.get(model, ("adapter",))]
        base = ("--model_type", model, "--model_id_or_path", str(GOLDEN / model / "checkpoint"))
        given = ("--max_num_seqs", "4", *OPTIONS.get(model, ()), "--lora_modules", *adapters)
        self.stack.start("worker", *base, *given)


def ids_of(model: str) -> list[str]:
    """A model's id and those of its adapters, which are named after it, because all share one gateway."""
    return [model, *(f"{model}:{adapter}" for adapter in ADAPTERS.get(model, ("adapter",)))]


def with_urls(message: dict, media_url: str) -> dict:
    """The case's message with its media on an HTTP server."""
    if isinstance(message["content"], str):
        return message
    parts = []
    for part in message["content"]:
        kind = part["type"]
        parts.append(part if kind == "text" else {"type": kind, kind: {"url": f"{media_url}/{part[kind]['url'][6:]}"}})
    return message | {"content": parts}


def check_together(walk: Walk, cases: Mapping[str, Any]) -> None:
    """Ask for cases of the base and all of its adapters at once; one worker answers them in its batch."""
    tuned = [case for case in cases.values() if case.facts["adapter"]]
    base = [case for case in cases.values() if not case.facts["adapter"] and "special" not in case.name][: len(tuned)]
    mixed = [case for pair in zip(tuned, base, strict=True) for case in pair]

    with ThreadPoolExecutor(len(mixed)) as pool:
        answers = list(pool.map(walk.ask, mixed))

    assert len({answer.model for answer in answers}) >= 2
    expected = [case.facts["greedy_text"].removesuffix("<|im_end|>") for case in mixed]
    assert expected == [answer.choices[0].message.content for answer in answers]


def safe_answer(case, model):
    """Return how many tokens the family itself makes of a case whose text is hostile, and what it answers."""
    from tests.worker.models.golden import generate, sequence

    prompt = model.prepare(*case.messages())
    (text,) = generate(model.runner, sequence(prompt, max_tokens=case.facts["max_new_tokens"]))
    return len(prompt.token_ids), text


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve a folder on an HTTP server of this machine."""
    served = partial(QuietFiles, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
