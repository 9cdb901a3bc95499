"""A receiver of webhooks: a real HTTP server that notes what it gets and answers by a script."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import standardwebhooks

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBtYW51ZmFjdHVyaW5nIGxpbmU="


@dataclass(frozen=True)
class Got:
    """One request, its signature verified."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """`answer` gives the status, headers and delay in seconds of each request; status 0: none."""

    answer: Callable[[Got], tuple[int, Mapping[str, str], float]] = lambda _: (204, {}, 0.0)
    got: list[Got] = field(default_factory=list)
    url: str = ""

    def stories(self) -> dict[str, list[int]]:
        """Of each part, the sequence numbers in the order in which they arrived."""
        found: dict[str, list[int]] = {}
        for one in self.got:
            part = one.json["data"]["ResultMetaData"]["PartId"]
            found.setdefault(part, []).append(one.json["sequence"])
        return found


@contextmanager
def receiving(receiver: Receiver, port: int = 0) -> Iterator[Receiver]:
    """The receiver at work on a port of this machine (0: any free one)."""
    signed = standardwebhooks.Webhook(SECRET)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:  # The sender was killed in the middle of it.
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            signed.verify(body, headers)
            got = Got(headers, body)
            receiver.got.append(got)
            status, more, delay_s = receiver.answer(got)
            time.sleep(delay_s)
            if not status:
                self.close_connection = True
                return
            try:
                self.send_response(status)
                for name, value in {"content-length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()
            except OSError:
                return  # the sender did not wait

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/T0K3N?key=1"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
