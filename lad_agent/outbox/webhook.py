"""A sink that posts each message to a URL, signed after Standard Webhooks (standardwebhooks.com).

The signature is HMAC-SHA256 over id, time and body; libraries of the convention verify it in any
language. The id stays the same at every attempt, so that a receiver can tell what it has already.
"""

import asyncio
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib.metadata import version
from urllib.parse import urlsplit

import httpx2
import standardwebhooks

from lad_agent.errors import UsageError
from lad_agent.outbox.sink import Answer, Away, Delivered, Refused
from lad_agent.store.outbox import Message

TIMEOUT_S = 10.0
LONGEST_WAIT_S = 3600.0
"""However long a receiver asks to be left alone."""

_ABOUT_THE_MESSAGE = frozenset({400, 409, 413, 422})
"""Answers that another message may not get; all others say something of the receiver."""
_LEAST_SECRET, _MOST_ANSWER = 24, 65_536


class Webhook:
    """Posts to `url`, signing with each secret of `secret` (two, a space between: one replaces
    the other).

    Raises:
        UsageError: no URL that can be posted to, or a secret that is none.
    """

    def __init__(self, url: str, secret: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.name = "webhook"
        self.target = origin(url)
        self._url = url
        self._signers = _signers(secret)
        self._timeout_s = timeout_s

    async def deliver(self, message: Message) -> Answer:
        """Post it; what the status means is in docs/results-out.md."""
        at = datetime.now(UTC)
        signed = [one.sign(message.id, at, message.body) for one in self._signers]
        headers = {
            "webhook-id": message.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signed),
        }
        client = self._client
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                client.stream(
                    "POST", self._url, content=message.body.encode(), headers=headers
                ) as response,
            ):
                await _read(response)
        except (httpx2.TimeoutException, TimeoutError):
            return Away(f"no answer within {self._timeout_s:g} s")
        except httpx2.HTTPError as error:
            return Away(" ".join(str(error).split()) or type(error).__name__)
        return _answer(response)

    async def aclose(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            await self._client.aclose()

    @cached_property
    def _client(self) -> httpx2.AsyncClient:
        # Loads certificates, and most commands only record.
        return httpx2.AsyncClient(
            timeout=self._timeout_s,
            follow_redirects=False,
            headers={
                "content-type": "application/json",
                "user-agent": f"lad-agent/{version('lad-agent')}",
            },
        )


def origin(url: str) -> str:
    """Where `url` leads, without what may be secret in it.

    >>> origin("https://mes.example/hooks/T0K3N?key=1")
    'https://mes.example'

    Raises:
        UsageError: no URL of HTTP, or one with a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        raise UsageError("setting webhook_url: give a URL like https://mes.example/results")
    if parts.username or parts.password:
        raise UsageError("setting webhook_url: no user or password in it; the signature proves us")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}"


def _signers(secret: str) -> Sequence[standardwebhooks.Webhook]:
    try:
        for one in secret.split() or [""]:
            key = binascii.a2b_base64(one.removeprefix("whsec_") + "==", strict_mode=False)
            if len(key) < _LEAST_SECRET:
                raise ValueError
    except ValueError as error:
        raise UsageError(
            f"setting webhook_secret: wants {_LEAST_SECRET} bytes or more in base64; "
            "openssl rand -base64 32 makes one"
        ) from error
    return [standardwebhooks.Webhook(one) for one in secret.split()]


async def _read(response: httpx2.Response) -> None:
    """Read the answer, so that the connection can be used again; of a long one only the start."""
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read > _MOST_ANSWER:
            return


def _answer(response: httpx2.Response) -> Answer:
    status = response.status_code
    said = f"it answered {status} {response.reason_phrase}".rstrip()
    if 200 <= status < 300:
        return Delivered()
    if status in _ABOUT_THE_MESSAGE:
        return Refused(said)
    if 300 <= status < 400:
        return Away(f"{said}; redirections are not followed, mend webhook_url")
    return Away(said, _retry_after_s(response.headers.get("retry-after")))


def _retry_after_s(value: str | None) -> float | None:
    """Seconds, or a date; anything else says nothing."""
    if value is None:
        return None
    try:
        if value.strip().isdecimal():
            wait = float(value)
        else:
            wait = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wait, 0.0), LONGEST_WAIT_S)
