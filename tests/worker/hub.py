"""A hub that speaks as much of Hugging Face's protocol as a download needs, and can fail in the middle of a file."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

COMMIT = "a" * 40


class Hub:
    """Serves the files of one directory as the repository `repo`; a context manager ends it."""

    def __init__(self, directory, repo="OpenGVLab/InternVL2-2B"):
        self.directory, self.repo = Path(directory), repo
        self.num_cuts = 0
        """How many more times a large file breaks off in its middle."""
        self.ranges = []
        """The range headers of the downloads."""
        hub = self

        class Answers(_Answers):
            pass

        Answers.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *raised):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def files(self):
        return sorted(path.name for path in self.directory.iterdir())


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(with_body=True)

    def do_HEAD(self):
        self._answer(with_body=False)

    def _answer(self, with_body):
        path = self.path.partition("?")[0]
        resolve = f"/{self.hub.repo}/resolve/{COMMIT}/"
        if path.startswith(f"/api/models/{self.hub.repo}/tree/"):
            return self._send_json([self._entry(name) for name in self.hub.files()])
        if path.startswith(f"/api/models/{self.hub.repo}"):
            siblings = [{"rfilename": name} for name in self.hub.files()]
            return self._send_json({"id": self.hub.repo, "sha": COMMIT, "siblings": siblings})
        if path.startswith(resolve):
            return self._send_file(path.removeprefix(resolve), with_body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def _entry(self, name):
        content = (self.hub.directory / name).read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _send_json(self, content):
        body = msgspec.json.encode(content)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, name, with_body):
        content = (self.hub.directory / name).read_bytes()
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.hub.ranges.append(start)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self._send_body(content[start:])

    def _send_body(self, content):
        if len(content) < 1 << 20 or self.hub.num_cuts == 0:
            self.wfile.write(content)
            return
        self.hub.num_cuts -= 1
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *arguments):
        pass
