"""The page on this machine: an HTTP server of a folder, for the browser on the same machine alone."""

import http.server
from pathlib import Path
from typing import Any

from .build import ISOLATION

ADDRESS = "127.0.0.1"


class _Handler(http.server.SimpleHTTPRequestHandler):
    # Said here, since what a machine's own tables say of a module decides whether a browser runs it.
    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".json": "application/json",
        ".packed": "application/octet-stream",
    }

    def end_headers(self) -> None:
        for name, value in ISOLATION.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")  # the folder may be built anew
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address is all that the user needs."""


def make_server(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of the folder, not yet serving; port 0 takes a free one. Raises OSError when the port is taken."""

    def handler(*args: Any) -> _Handler:
        return _Handler(*args, directory=str(folder))

    return http.server.ThreadingHTTPServer((ADDRESS, port), handler)


def address_of(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://{ADDRESS}:{server.server_address[1]}/"
