"""Who may do what: sessions, tokens, roles, forged requests, guessed passwords."""

from typing import Any

import httpx
import pytest

from lad_agent.errors import UsageError
from lad_agent.service import app, auth
from lad_agent.service.auth import COOKIE
from lad_agent.store import access, open_store
from tests.scripted import Scripted, malformed
from tests.service.conftest import API, PASSWORD, Running, form, problem, serving

DECIDE = {"finding": "conforming"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with a user of each role; every part waits for a person."""
    with serving(tmp_path_factory.mktemp("service"), Scripted(malformed)) as running:
        for role in ("viewer", "reviewer", "admin"):
            running.add_user(role, role, f"token-{role}")
        running.add_token("reviewer", "token-mes", "read", "inspect")
        running.add_token("reviewer", "token-old", "read", days=-1)
        yield running


def _post(client: httpx.Client, number: int) -> httpx.Response:
    return client.post(f"{API}/inspections", params={"wait": 20}, **form(number))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _sign_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    return client.post(f"{API}/session", json={"name": name, "password": password})


def test_an_open_service_is_the_system_users(tmp_path: Any) -> None:
    with serving(tmp_path) as running, running.client() as client:
        who = client.get(f"{API}/session").json()
        assert (who["name"], who["role"], who["open"]) == ("otto", "admin", True)
        # Another site's page, and a name that another site pointed here.
        elsewhere = {"Origin": "https://evil.example"}
        problem(client.post(f"{API}/inspections", headers=elsewhere, **form(1)), 403, "forged")
        problem(client.get(f"{API}/reviews", headers={"Host": "evil.example"}), 403, "not-local")
        running.add_user("anna", "viewer")
        problem(client.get(f"{API}/reviews"), 401, "unknown-user")


def test_nobody_does_anything_without_signing_in(client: httpx.Client) -> None:
    for path in ("/inspections", "/reviews", "/recipes", "/events", "/session"):
        refused = problem(client.get(API + path), 401, "unknown-user")
        assert "sign in" in refused["detail"]
    problem(client.get("/metrics"), 401, "unknown-user")
    problem(_post(client, 1), 401, "unknown-user")
    problem(client.get(f"{API}/reviews", headers=_bearer("wrong")), 401, "unknown-user")
    problem(client.get(f"{API}/reviews", headers={"Authorization": "x"}), 401, "unknown-user")
    assert client.get("/healthz").status_code == 200


def test_a_session_needs_its_token_for_every_change(client: httpx.Client) -> None:
    signed = _sign_in(client, "reviewer")
    cookie = signed.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    csrf = signed.json()["csrf"]
    assert client.get(f"{API}/session").json()["csrf"] == csrf
    for forged in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": "\xe9"}):
        headers = [(name.encode(), value.encode()) for name, value in forged.items()]
        answer = client.post(f"{API}/inspections", headers=headers, **form(2))
        problem(answer, 403, "forged")
    own = {"X-CSRF-Token": csrf}
    elsewhere = own | {"Origin": "http://evil.example"}
    problem(client.post(f"{API}/inspections", headers=elsewhere, **form(2)), 403, "forged")
    here = own | {"Origin": str(client.base_url).rstrip("/")}
    assert client.post(f"{API}/inspections", headers=here, **form(2)).status_code == 202
    assert client.delete(f"{API}/session", headers=own).status_code == 204
    client.cookies.set(COOKIE, cookie.partition(";")[0].partition("=")[2])
    ended = problem(client.get(f"{API}/reviews"), 401, "unknown-user")
    assert "ended" in ended["detail"]


def test_a_session_runs_out(tmp_path: Any) -> None:
    with serving(tmp_path, session_minutes=0.001) as running, running.client() as client:
        running.add_user("anna", "viewer")
        secret = _sign_in(client, "anna").cookies[COOKIE]
        client.cookies.set(COOKIE, secret)
        import time

        time.sleep(0.1)
        assert "ended" in problem(client.get(f"{API}/reviews"), 401, "unknown-user")["detail"]


def test_a_changed_password_ends_sessions_and_a_removed_user_tokens(tmp_path: Any) -> None:
    with serving(tmp_path) as running, running.client() as client:
        running.add_user("anna", "reviewer", "token-anna")
        _sign_in(client, "anna")
        assert client.get(f"{API}/reviews").status_code == 200
        store = running.services.store
        store.transact([lambda unit: access.set_password(unit, "s", "root", "anna", "x")])
        problem(client.get(f"{API}/reviews"), 401, "unknown-user")
        headers = _bearer("token-anna")
        assert client.get(f"{API}/reviews", headers=headers).status_code == 200
        store.transact([lambda unit: access.remove_user(unit, "s", "root", "anna")])
        problem(client.get(f"{API}/reviews", headers=headers), 401, "unknown-user")
        # Nobody is left, and still the service does not fall open.
        client.cookies.clear()
        problem(client.get(f"{API}/reviews"), 401, "unknown-user")
        said = [event["what"] for event in _access_events(running)]
        assert said == ["password set", "token issued", "password set", "token revoked"]
        assert store.verify_chain().intact


def _access_events(running: Running) -> list[Any]:
    from lad_agent.store import ledger
    from lad_agent.store.models import Event

    terms = Event.type == "access.changed"
    return running.services.store.ask(
        lambda session: [e.payload for e in ledger.entries(session.connection(), terms)]
    )


@pytest.mark.parametrize(
    ("token", "kind"),
    [("token-viewer", "missing-role"), ("token-mes", "missing-scope")],
)
def test_a_decision_needs_role_and_scope(client: httpx.Client, token: str, kind: str) -> None:
    posted = client.post(
        f"{API}/inspections", params={"wait": 20}, headers=_bearer("token-mes"), **form(3)
    )
    assert posted.status_code == 201
    reviews = client.get(f"{API}/reviews", headers=_bearer(token)).json()["items"]
    place = f"{API}/reviews/{reviews[-1]['id']}"
    for call in (
        client.post(f"{place}/decision", json=DECIDE, headers=_bearer(token)),
        client.post(f"{place}/claim", headers=_bearer(token)),
        client.post(f"{place}/undo", json={"reason": "x"}, headers=_bearer(token)),
    ):
        problem(call, 403, kind)


def test_a_viewer_inspects_nothing_and_an_old_token_does_nothing(client: httpx.Client) -> None:
    answer = client.post(f"{API}/inspections", headers=_bearer("token-viewer"), **form(4))
    problem(answer, 403, "missing-role")
    problem(client.get(f"{API}/reviews", headers=_bearer("token-old")), 401, "unknown-user")
    assert client.get("/metrics", headers=_bearer("token-viewer")).status_code == 200


def test_guessing_a_password_is_slowed(tmp_path: Any) -> None:
    with serving(tmp_path) as running, running.client() as client:
        running.add_user("anna", "viewer")
        for name in ("anna",) * 5 + ("nobody",):
            problem(_sign_in(client, name, "wrong"), 401, "unknown-user")
        refused = _sign_in(client, "anna")
        problem(refused, 429, "too-many-attempts")
        assert 0 < int(refused.headers["Retry-After"]) <= 301
        running.add_user("bert", "viewer")
        assert _sign_in(client, "bert").status_code == 200


def test_a_decision_is_signed_where_the_setting_asks(tmp_path: Any) -> None:
    with (
        serving(tmp_path, Scripted(malformed), sign_with_password=True) as running,
        running.client(headers=_bearer("token-anna")) as client,
    ):
        running.add_user("anna", "reviewer", "token-anna")
        _post(client, 1)
        (review,) = client.get(f"{API}/reviews").json()["items"]
        place = f"{API}/reviews/{review['id']}/decision"
        problem(client.post(place, json=DECIDE), 401, "unsigned")
        problem(client.post(place, json=DECIDE | {"password": "wrong"}), 401, "unknown-user")
        assert client.get(f"{API}/reviews/{review['id']}").json()["decision"] is None
        assert client.post(place, json=DECIDE | {"password": PASSWORD}).status_code == 200


def test_a_person_signs_in_by_page(service: Running) -> None:
    with service.client() as client:
        page = client.get("/login", params={"next": '//evil.example"><script>'})
        assert page.status_code == 200
        assert "evil" not in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
        said = {"name": "<b>anna", "password": "wrong", "next": "/reviews", "csrf": csrf}
        wrong = client.post("/login", data=said)
        assert wrong.status_code == 401
        assert "&lt;b&gt;anna" in wrong.text
        said |= {"name": "reviewer", "password": PASSWORD}
        problem(client.post("/login", data=said | {"csrf": "0"}), 403, "forged")
        went = client.post("/login", data=said)
        assert (went.status_code, went.headers["Location"]) == (303, "/reviews")
        assert client.get(f"{API}/session").json()["name"] == "reviewer"


def test_a_public_address_needs_users(tmp_path: Any) -> None:
    with open_store(tmp_path / "audit.db") as store:
        for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
            auth.check_address(host, store)
        for host in ("0.0.0.0", "::", "192.168.1.5", "plant.example"):
            with pytest.raises(UsageError, match="lad-agent users add"):
                auth.check_address(host, store)
        store.transact([lambda unit: access.add_user(unit, "s", "root", "anna", "admin", "x")])
        auth.check_address("0.0.0.0", store)


def test_a_port_belongs_to_one_from_the_start() -> None:
    with app.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match="cannot listen there"):
            app.listen("127.0.0.1", port)
