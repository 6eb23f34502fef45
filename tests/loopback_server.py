"""A local web server for tests, whose responses come from a function."""

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def listening(
    answer: Callable[[BaseHTTPRequestHandler], None], end: Callable[[], object] = lambda: None
) -> Generator[str]:
    """The server's URL, as http://127.0.0.1:PORT.

    Each connection is for one request, and each response says so: a client that sent the next request on it would find
    it closed. Connections cut by the client are ignored. `end` is called before the server stops, to release delayed
    responses.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise each response with a body waits 40 ms

        def do_GET(self):
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                answer(self)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def end_headers(self):
            self.send_header("Connection", "close")
            super().end_headers()

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            end()
            server.shutdown()
            thread.join()


def start(request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()


def send(request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes) -> None:
    start(request, status, {"Content-Length": str(len(body)), **headers})
    if request.command != "HEAD":
        request.wfile.write(body)


@contextlib.contextmanager
def serving_folder(folder: Path) -> Generator[str]:
    """The URL of a server of the files directly in a folder."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        path = folder / request.path.removeprefix("/")
        send(request, 200, {}, path.read_bytes()) if path.is_file() else send(request, 404, {}, b"")

    with listening(answer) as address:
        yield address
