"""What runs behind the scenes is seen: holds, alarms and results that do not arrive."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx
import pytest
from sqlalchemy import update

from lad_agent.store import AuditStore, outbox
from lad_agent.store.holds import Broken
from lad_agent.store.ledger import timestamp
from lad_agent.store.outbox import Message, OutboxRow
from tests.service.conftest import API, Running, problem, serving
from tests.store.samples import OK, intake, judgement

HOSTILE = "<script>alert(1)</script> {{7*7}} \x1b[2J\u202e"
BROKEN = Broken("screw_bag", "v1", "scripted", "2026-05-01", "escape_rate", f"6 bad {HOSTILE}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with the sink "mes", which nobody delivers to."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        running.add_user("vera", "viewer", "token-vera")
        running.add_token("vera", "token-blind", "inspect")
        store = running.services.store
        store.transact([lambda unit: outbox.subscribe(unit, "mes", "http://mes")])
        yield running


@pytest.fixture
def vera(service: Running) -> Iterator[httpx.Client]:
    with service.client(headers={"Authorization": "Bearer token-vera"}) as client:
        yield client


@pytest.fixture
def store(service: Running) -> Iterator[AuditStore]:
    """The service's store, in which a hold is on and an alarm stands."""
    store = service.services.store
    store.put_hold("line-1", "anna", HOSTILE)
    store.put_hold("line-1", "bert", "new supplier", "screw_bag")
    store.raise_alarms("line-1", "otto", [BROKEN])
    yield store
    for product in ("screw_bag", None):
        store.release_hold("line-1", "anna", product)


def test_holds_and_alarms_by_rest(vera: httpx.Client, store: AuditStore) -> None:
    every, bags = vera.get(f"{API}/holds").json()
    assert (every["product"], every["reason"], every["on_by"]) == (None, HOSTILE, "anna")
    assert (bags["product"], bags["reason"], bags["on_by"]) == ("screw_bag", "new supplier", "bert")
    assert bags["on_at"].endswith("Z")
    [alarm] = vera.get(f"{API}/alarms").json()
    assert (alarm["what"], alarm["recipe_version"]) == ("escape_rate", "v1")
    assert alarm["detail"] == BROKEN.detail
    store.release_hold("line-1", "anna", "screw_bag")
    assert [one["product"] for one in vera.get(f"{API}/holds").json()] == [None]
    assert vera.get(f"{API}/alarms").json() == []
    store.put_hold("line-1", "bert", "again", "screw_bag")


def test_who_may_not_read_sees_nothing(service: Running) -> None:
    with service.client() as client:
        for path in ("/holds", "/alarms"):
            problem(client.get(f"{API}{path}"), 401, "unknown-user")
            token = {"Authorization": "Bearer token-blind"}
            problem(client.get(f"{API}{path}", headers=token), 403, "missing-scope")


def test_the_schema_shows_what_a_hold_and_an_alarm_look_like(vera: httpx.Client) -> None:
    parts = vera.get(f"{API}/openapi.json").json()["components"]["schemas"]
    for name in ("ShownHold", "ShownAlarm"):
        [example] = parts[name]["examples"]
        assert example.keys() == parts[name]["properties"].keys()


def test_the_dashboard_shows_what_stands(
    vera: httpx.Client, store: AuditStore, service: Running
) -> None:
    _behind(service, waiting=2, given_up=1, hours=3)
    text = re.sub(r"\s+", " ", vera.get("/dashboard").text)
    assert "<strong>All products on hold:</strong>" in text
    assert "<strong>screw bag on hold:</strong>" in text
    assert "lad-agent hold release screw_bag --by NAME" in text
    assert "<strong>Alarm, screw bag, escape rate:</strong>" in text
    assert "<strong>2 results wait</strong> to be told to <bdi>mes</bdi>" in text
    assert "the oldest for 3 h, <strong>1 given up</strong>" in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert text.index("All products on hold") < text.index('<dl class="tiles">')


def test_a_calm_dashboard_shows_nothing_of_it(vera: httpx.Client, service: Running) -> None:
    _behind(service, waiting=0, given_up=0)
    text = vera.get("/dashboard").text
    assert "on hold" not in text
    assert "results wait" not in text
    _behind(service, waiting=1, given_up=0)
    text = vera.get("/dashboard").text
    assert re.search(r'<li class="quiet"><strong>1 results wait', text)


def test_figures_of_what_stands(vera: httpx.Client, store: AuditStore, service: Running) -> None:
    _behind(service, waiting=2, given_up=1, hours=3)
    figures = vera.get("/metrics").text
    for line in (
        'lad_agent_holds{product="all"} 1.0',
        'lad_agent_holds{product="screw_bag"} 1.0',
        'lad_agent_alarms{product="screw_bag"} 1.0',
        'lad_agent_outbox_waiting{sink="mes"} 2.0',
        'lad_agent_outbox_given_up{sink="mes"} 1.0',
    ):
        assert line in figures.splitlines()
    [oldest] = re.findall(r'lad_agent_outbox_oldest_seconds\{sink="mes"\} (\S+)', figures)
    assert 3 * 3600 <= float(oldest) < 4 * 3600
    store.release_hold("line-1", "anna", "screw_bag")
    _behind(service, waiting=0, given_up=0)
    figures = vera.get("/metrics").text
    for line in (
        'lad_agent_holds{product="screw_bag"} 0.0',
        'lad_agent_alarms{product="screw_bag"} 0.0',
        'lad_agent_outbox_waiting{sink="mes"} 0.0',
        'lad_agent_outbox_oldest_seconds{sink="mes"} 0.0',
    ):
        assert line in figures.splitlines()
    store.put_hold("line-1", "bert", "again", "screw_bag")


def _behind(service: Running, *, waiting: int, given_up: int, hours: float = 0) -> None:
    """So many messages wait for so long, and so many more were given up; no others."""
    store = service.services.store
    store.transact([lambda unit: outbox.delivered(unit, [one.id for one in _left(store)])])
    for _ in range(waiting + given_up):
        number = next(_numbers)
        opened = store.take_in(intake(f"p{number}", image_sha256=f"{number:064x}"))
        store.record(opened.id, OK, judgement())
    refused = [one.id for one in _left(store)][:given_up]
    at = timestamp(datetime.now(UTC) - timedelta(hours=hours))
    store.transact(
        [
            lambda unit: [outbox.refused(unit, one, "it answered 422", None) for one in refused],
            lambda unit: unit.connection.execute(update(OutboxRow).values(at=at)),
        ]
    )


def _left(store: AuditStore) -> list[Message]:
    return store.ask(lambda session: outbox.messages(session, everything=False, limit=99))


_numbers = count()
