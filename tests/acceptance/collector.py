"""A stand-in for an OpenTelemetry collector: takes spans over HTTP and keeps them."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Listens on a port of its own from the start."""

    def __init__(self) -> None:
        self.spans = []
        kept = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    service = next(
                        a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
                    )
                    kept.extend((service, span) for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def wait_for(self, trace_id: str, num_spans: int, timeout_s: float = 30) -> dict[str, tuple[str, object]]:
        """Service and span by name, once that many of the trace are there."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = {span.name: (service, span) for service, span in self.spans if span.trace_id.hex() == trace_id}
            if len(found) >= num_spans:
                return found
            assert time.monotonic() < deadline, sorted(found)
            time.sleep(0.05)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
