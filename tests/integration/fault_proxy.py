"""A proxy before an S3 server that lets requests fail: before they arrive, or in their answers."""

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from urllib.parse import urlsplit

ERRORS = {
    "slow": (503, "SlowDown"),
    "error": (500, "InternalError"),
    "denied": (403, "AccessDenied"),
}
STALL_SECONDS = 70
"""More than clients wait for an answer."""


@dataclass
class FaultProxy:
    """The proxy, while it runs."""

    endpoint: str
    rates: dict[str, float] = field(default_factory=dict)
    """Share of requests that fail, by kind: those of `ERRORS`; `reset` and `lost`, connections that
    end without an answer, before the request arrives or after it was carried out; `cut`, bodies
    that end early; `stall`, answers that come too late."""
    failed: Counter[str] = field(default_factory=Counter)
    """Requests that have failed, by kind."""
    whole_bucket: bool = True
    """Whether requests on the bucket itself, not on objects, fail too."""
    random: Random = field(default_factory=lambda: Random(0))

    def choose(self, method: str, path: str) -> str | None:
        """How a request fails; None: it does not."""
        if not self.whole_bucket and path.strip("/").count("/") == 0:
            return None
        drawn = self.random.random()
        for kind, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                if kind == "cut" and method != "GET":
                    return None
                self.failed[kind] += 1
                return kind
        return None


@contextlib.contextmanager
def fault_proxy(server: str) -> Iterator[FaultProxy]:
    """Run a proxy before the S3 server at the URL `server`."""
    behind = urlsplit(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            kind = proxy.choose(self.command, self.path)
            if kind in ERRORS:
                return self.fail(*ERRORS[kind])
            self.close_connection = kind in ("reset", "lost", "cut", "stall")
            if kind == "stall":
                time.sleep(STALL_SECONDS)
            if kind in ("reset", "stall"):
                return None
            assert behind.hostname
            connection = http.client.HTTPConnection(behind.hostname, behind.port, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
            if kind != "lost":
                self.answer(answer, content, cut=kind == "cut")
            return None

        def answer(self, answer: http.client.HTTPResponse, content: bytes, *, cut: bool) -> None:
            # Its date is that of the server.
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            stated = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", stated or str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)

        def fail(self, status: int, code: str) -> None:
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>x</Message></Error>"
            content = b"" if self.command == "HEAD" else text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do  # noqa: N815 - http.server's names

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    proxy = FaultProxy(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
