"""Users, sessions, tokens and accepted requests, on both databases."""

import pytest

from lad_agent.errors import Conflict, NotFound, UsageError
from lad_agent.store import AuditStore, access
from tests.store.samples import DOUBT, HOSTILE, intake, judgement


@pytest.fixture
def store(each_store: AuditStore) -> AuditStore:
    """Every test here runs on both databases, with one user."""
    each_store.transact(
        [lambda unit: access.add_user(unit, "s", "root", HOSTILE, "reviewer", "hash")]
    )
    return each_store


def test_a_session_lasts_until_it_is_closed_or_over(store: AuditStore) -> None:
    store.transact([lambda unit: access.open_session(unit, "short", HOSTILE, -1)])
    store.transact([lambda unit: access.open_session(unit, "long", HOSTILE, 10)])
    owner = store.ask(lambda session: access.session_user(session, "long"))
    assert owner is not None
    assert (owner.name, owner.role, owner.password) == (HOSTILE, "reviewer", "hash")
    assert store.ask(lambda session: access.session_user(session, "short")) is None
    store.transact([lambda unit: access.close_session(unit, "long")])
    assert store.ask(lambda session: access.session_user(session, "long")) is None


def test_a_token_is_its_owners_until_it_is_revoked(store: AuditStore) -> None:
    (token_id,) = store.transact([lambda unit: _issue(unit, HOSTILE, "read", "inspect")])
    found = store.ask(lambda session: access.token(session, "secret"))
    assert found is not None
    assert (found[0].scopes, found[1].name) == (("inspect", "read"), HOSTILE)
    assert store.ask(lambda session: access.token(session, "other")) is None
    for _ in range(2):
        store.transact([lambda unit: access.revoke_token(unit, "s", "root", str(token_id))])
    assert store.ask(lambda session: access.token(session, "secret")) is None
    with pytest.raises(NotFound):
        store.transact([lambda unit: _issue(unit, "eve", "read")])
    for scopes in ((), ("all",)):
        with pytest.raises(UsageError, match="known: read"):
            store.transact([lambda unit, s=scopes: _issue(unit, HOSTILE, *s)])  # type: ignore[misc]


def test_secrets_outlive_a_rebuild_and_are_in_no_event(store: AuditStore) -> None:
    store.transact([lambda unit: _issue(unit, HOSTILE, "read")])
    before = store.ask(access.users)
    store.rebuild()
    assert store.ask(access.users) == before
    assert store.ask(lambda session: access.token(session, "secret")) is not None
    with store._connection() as connection:
        text = str(connection.exec_driver_sql("SELECT canonical FROM events").all())
    for secret in ("secret", access.digest("secret"), '"hash"'):
        assert secret not in text


def test_an_accepted_request_is_found_by_its_key(store: AuditStore) -> None:
    opened, done = store.take_in(intake("p1")), store.take_in(intake("p2"))
    store.transact(
        [
            lambda unit: access.accept(unit, "k1", "body", opened.id, "line-1"),
            lambda unit: access.accept(unit, "k1", "body", opened.id, "line-1"),
            lambda unit: access.accept(unit, "k2", "body", done.id, "line-1"),
        ]
    )
    with pytest.raises(Conflict, match="another request"):
        store.transact([lambda unit: access.accept(unit, "k1", "x", opened.id, "line-1")])
    found = store.ask(lambda session: access.accepted(session, "k1"))
    assert found == access.Accepted("body", opened.id)
    store.escalate(done.id, DOUBT, judgement())
    assert store.ask(lambda session: access.unfinished(session, "line-1")) == [opened.id]
    assert store.ask(lambda session: access.unfinished(session, "line-2")) == []


def _issue(unit: access.Unit, name: str, *scopes: str) -> str:
    return access.issue_token(
        unit, "s", "root", name, secret="secret", label="", scopes=scopes, days=None
    )
