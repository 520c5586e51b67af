"""An HTTP server that always answers the same, for what our own server never says."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CannedServer(ThreadingHTTPServer):
    """Answers every request with one body; text is sent as a stream of events. It remembers what it was asked."""

    daemon_threads = True

    def __init__(self, answer: object, status: int = 200, takes_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.status, self.takes_s = answer, status, takes_s
        self.asked: list[tuple[str, dict]] = []
        self.num_running = self.max_running = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: CannedServer

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, asked))
            self.server.num_running += 1
            self.server.max_running = max(self.server.max_running, self.server.num_running)
        time.sleep(self.server.takes_s)
        with self.server.lock:
            self.server.num_running -= 1
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        is_stream = isinstance(self.server.answer, str)
        body = self.server.answer if is_stream else json.dumps(self.server.answer)
        self.send_response(self.server.status)
        self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        pass
