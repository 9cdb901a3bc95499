"""The webhook against a real receiver: how it signs, and what it makes of each answer."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from lad_agent.errors import UsageError
from lad_agent.outbox import Answer, Away, Delivered, Refused
from lad_agent.outbox.webhook import LONGEST_WAIT_S, Webhook, origin
from lad_agent.store.outbox import Message
from tests.outbox.receiver import SECRET, Receiver, receiving

MESSAGE = Message(
    id="msg_1",
    sink="webhook",
    seq=1,
    part_id="p1",
    inspection_id="i1",
    type="inspection.recorded",
    at="2026-05-31T08:00:00.000000Z",
    body='{"part":"<script>alert(1)</script> \\udcff"}',
    failures=0,
    not_before=None,
    error=None,
    delivered_at=None,
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as found:
        yield found


@pytest.fixture
async def webhook(receiver: Receiver) -> AsyncIterator[Webhook]:
    made = Webhook(receiver.url, SECRET)
    yield made
    await made.aclose()


async def test_a_message_is_signed_after_standard_webhooks(
    receiver: Receiver, webhook: Webhook
) -> None:
    assert await webhook.deliver(MESSAGE) == Delivered()
    (got,) = receiver.got
    assert json.loads(got.body) == json.loads(MESSAGE.body)
    assert got.headers["content-type"] == "application/json"
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{got.id}.{got.headers['webhook-timestamp']}.".encode() + got.body
    digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert got.headers["webhook-signature"] == f"v1,{digest}"


async def test_while_a_secret_is_replaced_both_sign(receiver: Receiver) -> None:
    webhook = Webhook(receiver.url, f"{'b' * 44} {SECRET}")
    assert await webhook.deliver(MESSAGE) == Delivered()
    assert len(receiver.got[0].headers["webhook-signature"].split()) == 2
    await webhook.aclose()


@pytest.mark.parametrize(
    ("status", "headers", "answer"),
    [
        (200, {}, Delivered()),
        (422, {}, Refused("it answered 422 Unprocessable Entity")),
        (404, {}, Away("it answered 404 Not Found")),
        (503, {"retry-after": "120"}, Away("it answered 503 Service Unavailable", 120.0)),
        (429, {"retry-after": "soon"}, Away("it answered 429 Too Many Requests")),
        (500, {"retry-after": "9" * 30}, Away("it answered 500 Internal Server Error", 3600.0)),
        (
            302,
            {"location": "http://127.0.0.1:1/"},
            Away("it answered 302 Found; redirections are not followed, mend webhook_url"),
        ),
    ],
)
async def test_what_an_answer_means(
    receiver: Receiver, webhook: Webhook, status: int, headers: dict[str, str], answer: Answer
) -> None:
    receiver.answer = lambda _: (status, headers, 0.0)
    assert await webhook.deliver(MESSAGE) == answer


async def test_a_date_to_retry_at_is_understood(receiver: Receiver, webhook: Webhook) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    receiver.answer = lambda _: (503, {"retry-after": later}, 0.0)
    answer = await webhook.deliver(MESSAGE)
    assert isinstance(answer, Away)
    assert answer.retry_after_s is not None
    assert 60 < answer.retry_after_s <= 90 < LONGEST_WAIT_S


async def test_a_receiver_that_is_not_there_or_silent_is_away(receiver: Receiver) -> None:
    nobody = Webhook("http://127.0.0.1:9/", SECRET)
    answer = await nobody.deliver(MESSAGE)
    assert isinstance(answer, Away)
    assert answer.error
    await nobody.aclose()
    receiver.answer = lambda _: (200, {}, 2.0)
    silent = Webhook(receiver.url, SECRET, timeout_s=0.2)
    assert await silent.deliver(MESSAGE) == Away("no answer within 0.2 s")
    await silent.aclose()


@pytest.mark.parametrize(
    ("url", "secret", "fault"),
    [
        ("mes.example", SECRET, "setting webhook_url: give a URL"),
        ("ftp://mes.example/", SECRET, "setting webhook_url: give a URL"),
        ("https://[::1/", SECRET, "setting webhook_url: give a URL"),
        ("https://me:pass@mes.example/", SECRET, "setting webhook_url: no user or password"),
        ("https://mes.example/", "", "setting webhook_secret: wants 24 bytes"),
        ("https://mes.example/", "whsec_c2hvcnQ=", "setting webhook_secret: wants 24 bytes"),
        ("https://mes.example/", f"{SECRET} x", "setting webhook_secret: wants 24 bytes"),
    ],
)
def test_a_wrong_setting_is_explained_and_no_secret_shown(
    url: str, secret: str, fault: str
) -> None:
    with pytest.raises(UsageError, match=fault) as raised:
        Webhook(url, secret)
    assert "pass" not in str(raised.value).replace("password", "")
    assert "c2hvcnQ" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://mes.example/hooks/T0K3N?key=1#x", "https://mes.example"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
    ],
)
def test_a_target_is_named_without_its_path(url: str, shown: str) -> None:
    assert origin(url) == shown
