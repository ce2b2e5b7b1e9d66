"""An HTTP server of our own that takes messages, and can be told to misbehave."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from types import TracebackType
from typing import Any, Self

from flightlog.testing.notifier_contract import Behaviour


@dataclass(frozen=True)
class Posted:
    """A request.

    Attributes:
        path: its path.
        headers: its headers, names in small letters.
        body: its body.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered.

    Attributes:
        status: the status code.
        body: the body.
        kind: the content type.
        headers: further headers.
    """

    status: int = 200
    body: str = "ok"
    kind: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict)


class Receiver:
    """A server on a port of 127.0.0.1.

    Args:
        certificate: a file with certificate and key, for TLS; None for none.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.posted: list[Posted] = []
        self.kept: list[Posted] = []
        self.answers: list[Answer] = []
        self._how: list[tuple[Behaviour, str | None]] = []
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if certificate is not None:
            context = SSLContext(PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.leave()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def attempts(self) -> int:
        """How many requests came in."""
        return len(self.posted)

    def misbehave(self, how: Behaviour, *, retry_after: str | None = None) -> None:
        """Treat the next message that way."""
        self._how.append((how, retry_after))

    def answer_next(self, *answers: Answer) -> None:
        """Give these answers to the next requests."""
        self.answers += answers

    def leave(self) -> None:
        """Stop."""
        self._over.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def answer(self, posted: Posted) -> Answer:
        """Answer a request; what is kept was taken."""
        self.kept.append(posted)
        return Answer()

    def bad(self, how: Behaviour, retry_after: str | None) -> Answer | None:
        """Return the answer of a server that misbehaves; None if there is none."""
        wait = {} if retry_after is None else {"Retry-After": retry_after}
        if how == "busy":
            return Answer(429, "slow down", headers=wait)
        if how == "broken":
            return Answer(503, "<html>Service Unavailable</html>", "text/html", wait)
        if how == "refusing":
            return Answer(403, "no")
        if how == "slow":
            self._over.wait(20)
        return None

    def _respond(self, posted: Posted) -> Answer | None:
        self.posted.append(posted)
        if self._how:
            return self.bad(*self._how.pop(0))
        return self.answers.pop(0) if self.answers else self.answer(posted)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                answer = receiver._respond(Posted(self.path, headers, body))
                self.close_connection = True
                if answer is None:
                    return
                self.send_response_only(answer.status)
                content = answer.body.encode()
                for name, value in {"Content-Type": answer.kind, "Content-Length": str(len(content)),
                                    "Connection": "close", **answer.headers}.items():  # fmt: skip
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        return Handler
