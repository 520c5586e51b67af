"""The command that a person pastes to see the model answer."""

import base64
import json
import shlex

from baton.picture import circle_and_square
from shared.fleet import WorkerInfo
from shared.job import MediaKind

MAX_TOKENS = 64


def base_url(host: str, port: int, *, has_tls: bool = False) -> str:
    """Return where a client on this machine reaches a gateway that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    scheme = "https" if has_tls else "http"
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def curl_command(url: str, worker: WorkerInfo, *, needs_key: bool) -> str:
    """Return a question to the worker's model as one line for a shell; the key is left to a variable."""
    question = {"model": worker.model, "messages": [_message(worker)], "max_tokens": MAX_TOKENS}
    headers = ["-H", shlex.quote("Content-Type: application/json")]
    if needs_key:
        headers += ["-H", '"Authorization: Bearer $BATON_API_KEY"']
    return " ".join(["curl", f"{url}/v1/chat/completions", *headers, "-d", shlex.quote(json.dumps(question))])


def _message(worker: WorkerInfo) -> dict[str, object]:
    if MediaKind.IMAGE not in worker.modalities:
        return {"role": "user", "content": "Which word comes next?"}
    picture = "data:image/png;base64," + base64.b64encode(circle_and_square()).decode()
    parts = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "What is in the picture?"}]
    return {"role": "user", "content": parts}
