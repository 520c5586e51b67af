"""One family's golden checkpoint and its adapters behind a gateway, each on a worker of its own."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

from openai import OpenAI

from baton.embedded import EmbeddedRedis
from tests.acceptance.conftest import QuietFiles, Stack
from tests.acceptance.test_golden import with_urls


@dataclass(frozen=True)
class Walk:
    """The official client, and where the golden media lie."""

    client: OpenAI
    media_url: str
    model: str

    def ask(self, case, **more):
        """Send the case as an OpenAI client does; return what the client makes of the answer."""
        return self.client.chat.completions.create(
            model=case.facts["adapter"] or self.model,
            max_tokens=case.facts["max_new_tokens"],
            temperature=0,
            messages=[with_urls(message, self.media_url) for message in case.facts["messages"]],
            **more,
        )

    def stream(self, case):
        """Return the streamed answer's text, its finish reason and its number of tokens."""
        chunks = list(self.ask(case, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return text, chunks[-2].choices[0].finish_reason, chunks[-1].usage.completion_tokens


@contextmanager
def golden_walk(model: str, folder: Path, adapters: Sequence[str]) -> Iterator[Walk]:
    """Start everything, and end it."""
    base = ("--model_type", model, "--model_id_or_path", str(folder / "checkpoint"))
    with EmbeddedRedis() as server, serving(folder / "media") as media_url:
        stack = Stack(server.url)
        try:
            stack.start_gateway()
            stack.start("worker", *base)
            for adapter in adapters:
                merged = ("--ckpt_dir", str(folder / adapter), "--merge_lora", "true")
                stack.start("worker", *base, *merged, "--served_model_name", adapter)
            stack.wait_for_models(model, *adapters)
            with stack.client() as client:
                yield Walk(client, media_url, model)
        finally:
            stack.stop()


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve a folder on an HTTP server of this machine."""
    served = partial(QuietFiles, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
