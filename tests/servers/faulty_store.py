"""An S3 server on loopback (moto) that can be told to fail, as a store in trouble does."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import fsspec
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

BUCKET = "bucket"
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ANSWERS = ("503 Service Unavailable", "500 Internal Server Error")


class FaultyStore:
    """environment: by which commands and workers find it. failures: answers that were faults.

    asked: method, path and range of each request.
    """

    def __init__(self) -> None:
        self._backend: Wsgi = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
        self._lock = threading.Lock()
        self._before, self._left, self._method = 0, 0, "PUT"
        self.failures = 0
        self.asked: list[tuple[str, str, str]] = []
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        host, port = self._server.server_address[:2]
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host!s}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.files = fsspec.filesystem(
            "s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], key="test", secret="test"
        )
        self.files.mkdirs(BUCKET, exist_ok=True)  # moto's stores are one within a process

    def fail(self, *, after: int, times: int, method: str = "PUT") -> None:
        """Let `after` writes through, answer the `times` next ones with 503 and 500 in turn.

        method: "GET" for reads instead.
        """
        with self._lock:
            self._before, self._left, self._method, self.failures = after, times, method, 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method = request["REQUEST_METHOD"]
        self.asked.append((method, request["PATH_INFO"], request.get("HTTP_RANGE", "")))
        if method == self._method and self._fails():
            start(ANSWERS[self.failures % len(ANSWERS)], [("Content-Length", "0")])
            return [b""]
        return self._backend(request, start)

    def _fails(self) -> bool:
        with self._lock:
            if self._before > 0:
                self._before -= 1
                return False
            if not self._left:
                return False
            self._left -= 1
            self.failures += 1
            return True
