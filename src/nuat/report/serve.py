"""Serving the page on this machine, made anew whenever it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

HOST = "127.0.0.1"
"""The loopback address: the page cannot be reached from another machine."""

REFRESH_SECONDS = 10


def page_server(render: Callable[[], str], port: int = 0) -> HTTPServer:
    """Return a server of one page at http://127.0.0.1:PORT/; `serve_forever()` runs it.

    It answers one request after another, since matplotlib draws in one thread only.

    Args:
        render: returns the page as HTML; called for every request. An error of it is shown as text.
        port: the port, or 0 for any that is free; `server_port` of the server tells which.

    Raises:
        OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        # a browser may open a connection and say nothing, while others wait
        timeout = 1

        def do_GET(self) -> None:
            if self.path != "/":
                self.send_error(404)
                return
            try:
                status, kind, text = 200, "text/html", render()
            except Exception as error:  # such as a file that is being written at this moment
                status, kind, text = 503, "text/plain", f"{type(error).__name__}: {error}"
            content = text.encode("utf-8", errors="replace")
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Refresh", str(REFRESH_SECONDS))
            self.end_headers()
            with suppress(ConnectionError):  # the browser has left
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass  # a line for every refresh would hide all other output

    return HTTPServer((HOST, port), Handler)
