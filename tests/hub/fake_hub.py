"""A Hub for tests: an HTTP server in this process that speaks the Hub's API, and misbehaves when it is told to.

Set HF_ENDPOINT to its `url` and HF_HUB_DISABLE_XET=1. What it does not know it answers with 404 and keeps in
`store.unknown`.
"""

import json
import re
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from tests.hub.hub_api import Reply, Store, Tree, answer

Fault = int | Literal["drop request", "drop answer", "echo"]


@dataclass
class _Failure:
    method: str
    pattern: re.Pattern[str]
    times: int
    fault: Fault


class FakeHub:
    """Start with FakeHub(), stop with close(); `url` is what HF_ENDPOINT is set to."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._failures: list[_Failure] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.store = Store(self.url)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, method: str, pattern: str, times: int = 1, fault: Fault = 500) -> None:
        """The next `times` requests of this method whose path holds the pattern fail.

        Args:
            fault: a status to answer with instead of doing it; "drop request": the connection is cut when half of the
                request has come; "drop answer": it is done, and the connection is cut in the middle of the answer;
                "echo": 400, and the answer repeats the headers of the request.
        """
        self._failures.append(_Failure(method, re.compile(pattern), times, fault))

    def recover(self) -> None:
        self._failures.clear()

    def files(self, repository: str, repo_type: str = "model", revision: str = "main") -> Tree:
        """The files of a branch without .gitattributes, which the Hub itself puts there."""
        found = self.store.repositories[repo_type, repository]
        tree = found.commits[found.branches[revision]][0]
        return {path: content for path, content in tree.items() if path != ".gitattributes"}

    def messages(self, repository: str, repo_type: str = "model") -> list[str]:
        """The messages of all commits but the first, which the Hub makes with the repository."""
        return [message for _, message in self.store.repositories[repo_type, repository].commits.values()][1:]

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for failure in self._failures:
                if failure.method == method and failure.times and failure.pattern.search(path):
                    failure.times -= 1
                    return failure.fault
        return None

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Reply:
        with self._lock:
            self.requests.append(f"{method} {unquote(urlsplit(target).path)}")
            return answer(self.store, method, target, headers, body)


# --- the wire -------------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave in the middle: that is what some of the tests are about."""


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def _serve(self) -> None:
            path = unquote(urlsplit(self.path).path)
            fault = hub.fault_of(self.command, path)
            if fault == "drop request":
                self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
                self._cut()
                return
            body = self._body()
            if isinstance(fault, int):
                self._send(Reply(fault, {"error": "as the test wants it"}), cut=False)
                return
            if fault == "echo":
                self._send(Reply(400, {"error": str(self.headers)}), cut=False)
                return
            self._send(hub.answer(self.command, self.path, self.headers, body), cut=fault == "drop answer")

        do_GET = do_HEAD = do_POST = do_PUT = _serve

        def _body(self) -> bytes:
            if (self.headers.get("Transfer-Encoding") or "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def _send(self, reply: Reply, cut: bool) -> None:
            is_bytes = isinstance(reply.body, bytes)
            body = reply.body if is_bytes else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/octet-stream" if is_bytes else "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in reply.headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.wfile.flush()
                self._cut()

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
