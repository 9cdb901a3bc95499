"""Reviews by REST: claims, races, stale answers, audits, and decisions taken elsewhere."""

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from lad_agent.inspection import MEANINGS, ReviewDecision
from lad_agent.judgement import Disposition, Finding
from lad_agent.store import AuditStore, open_store
from tests.scripted import Scripted, good, malformed
from tests.service.conftest import API, Running, eventually, form, problem, serving

REVIEWS = f"{API}/reviews"
SCRAP = {"finding": "nonconforming", "disposition": "scrap", "rule": "R1", "comment": "one washer"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service whose reasoner never gives a proper answer."""
    with serving(tmp_path_factory.mktemp("service"), Scripted(malformed)) as running:
        running.add_user("anna", "reviewer", "token-anna")
        running.add_user("bert", "reviewer", "token-bert")
        yield running


@pytest.fixture
def anna(service: Running) -> Any:
    with service.client(headers={"Authorization": "Bearer token-anna"}) as client:
        yield client


@pytest.fixture
def bert(service: Running) -> Any:
    with service.client(headers={"Authorization": "Bearer token-bert"}) as client:
        yield client


_numbers = iter(range(1000))


@pytest.fixture
def waiting(anna: httpx.Client) -> dict[str, Any]:
    """A new part that waits for a person: its review."""
    posted = anna.post(f"{API}/inspections", params={"wait": 20}, **form(next(_numbers)))
    items = anna.get(REVIEWS, params={"decided": False, "limit": 500}).json()["items"]
    (found,) = [item for item in items if item["inspection"] == posted.json()["id"]]
    return dict(found)


def _closed(service: Running, review: dict[str, Any]) -> bool:
    return service.services.store.inspection(review["inspection"]).closed_at is not None


def _events(store: AuditStore, inspection_id: str) -> list[str]:
    return [event.type for event in store.history(inspection_id).events]


def test_a_decision_is_signed_and_ends_the_inspection(
    anna: httpx.Client, service: Running, waiting: dict[str, Any]
) -> None:
    assert waiting["decision"] is None
    assert waiting["outcome"]["reason"] == "malformed-answer"
    decided = anna.post(f"{REVIEWS}/{waiting['id']}/decision", json=SCRAP).json()
    assert decided["decision"] == SCRAP
    assert decided["signature"]["by"] == "anna"
    assert decided["signature"]["meaning"] == MEANINGS["escalation"]
    assert decided["signature"]["at"].endswith("Z")
    eventually(lambda: _closed(service, waiting))
    assert anna.get(f"{API}/inspections/{waiting['inspection']}").json()["final"] == "NotOK"
    (event,) = [
        event
        for event in service.services.store.history(waiting["inspection"]).events
        if event.type == "review.decided"
    ]
    assert (event.actor, event.payload["meaning"]) == ("anna", MEANINGS["escalation"])


def test_a_claim_keeps_others_off(
    anna: httpx.Client, bert: httpx.Client, waiting: dict[str, Any]
) -> None:
    place = f"{REVIEWS}/{waiting['id']}"
    assert anna.post(f"{place}/claim", json={"minutes": 5}).json()["by"] == "anna"
    assert bert.get(place).json()["claim"]["by"] == "anna"
    for refused in (
        bert.post(f"{place}/claim"),
        bert.post(f"{place}/decision", json={"finding": "conforming"}),
    ):
        told = problem(refused, 409, "conflict")
        assert "in the hand of anna" in told["detail"]
        assert told["review"]["claim"]["by"] == "anna"
    assert bert.delete(f"{place}/claim").status_code == 204
    assert anna.get(place).json()["claim"]["by"] == "anna"
    assert anna.delete(f"{place}/claim").status_code == 204
    assert bert.post(f"{place}/decision", json={"finding": "conforming"}).status_code == 200


def test_a_race_has_one_winner_and_the_others_are_told(
    anna: httpx.Client, bert: httpx.Client, waiting: dict[str, Any], service: Running
) -> None:
    place = f"{REVIEWS}/{waiting['id']}/decision"
    together, answers = threading.Barrier(6), []

    def decide(client: httpx.Client, said: dict[str, str]) -> None:
        together.wait()
        answers.append(client.post(place, json=said))

    threads = [
        threading.Thread(target=decide, args=(client, said))
        for client, said in ((anna, SCRAP), (bert, {"finding": "conforming"})) * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [answer.json() for answer in answers if answer.status_code == 200]
    for answer in answers:
        if answer.status_code != 200:
            told = problem(answer, 409, "conflict")
            assert f"decided by {winner['signature']['by']}" in told["detail"]
            assert told["review"]["decision"] == winner["decision"]
    eventually(lambda: _closed(service, waiting))
    events = _events(service.services.store, waiting["inspection"])
    assert events.count("review.decided") == events.count("inspection.closed") == 1


def test_a_decision_taken_back_waits_again(anna: httpx.Client, waiting: dict[str, Any]) -> None:
    place = f"{REVIEWS}/{waiting['id']}"
    told = problem(anna.post(f"{place}/undo", json={"reason": "none yet"}), 409, "conflict")
    assert told["review"]["decision"] is None
    anna.post(f"{place}/decision", json=SCRAP)
    problem(anna.post(f"{place}/undo", json={"reason": " "}), 422, "invalid")
    assert anna.post(f"{place}/undo", json={"reason": "slipped"}).json()["decision"] is None
    again = anna.post(f"{place}/decision", json={"finding": "conforming"})
    assert again.json()["decision"]["finding"] == "conforming"


def test_an_incomplete_decision_is_refused(anna: httpx.Client, waiting: dict[str, Any]) -> None:
    place = f"{REVIEWS}/{waiting['id']}/decision"
    for said, told in (
        ({"finding": "nonconforming"}, "needs a disposition"),
        ({"finding": "conforming", "disposition": "scrap"}, "neither disposition"),
        (SCRAP | {"rule": "R9"}, "no rule 'R9'"),
        ({"finding": "fine"}, "finding"),
        (SCRAP | {"by": "somebody else"}, "by"),
    ):
        assert told in problem(anna.post(place, json=said), 422, "invalid")["detail"]
    problem(anna.post(f"{REVIEWS}/none/decision", json=SCRAP), 404, "not-found")


def test_a_finding_against_the_reasoner_says_why(tmp_path: Path) -> None:
    with (
        serving(tmp_path, Scripted(good), policy={"min_confidence": 1.0}) as running,
        running.client() as client,
    ):
        client.post(f"{API}/inspections", params={"wait": 20}, **form(1))
        (review,) = client.get(REVIEWS).json()["items"]
        place = f"{REVIEWS}/{review['id']}/decision"
        told = problem(client.post(place, json=SCRAP | {"comment": " "}), 422, "needs-reason")
        assert "say why in a comment" in told["detail"]
        assert client.get(REVIEWS, params={"decided": True}).json()["items"] == []
        assert client.post(place, json=SCRAP).json()["decision"]["comment"] == "one washer"


def test_hostile_comments_come_back_as_they_were(
    anna: httpx.Client, waiting: dict[str, Any]
) -> None:
    comment = "<img src=x onerror=alert(1)>\x00\u202e'; --"
    said = SCRAP | {"comment": comment}
    anna.post(f"{REVIEWS}/{waiting['id']}/decision", json=said)
    found = anna.get(f"{REVIEWS}/{waiting['id']}")
    assert found.json()["decision"]["comment"] == comment
    assert found.headers["Content-Type"] == "application/json"


def test_an_audit_is_blind_until_it_is_decided(tmp_path: Path) -> None:
    with (
        serving(tmp_path, Scripted(good), policy={"audit_rate": 1.0}) as running,
        running.client() as client,
    ):
        client.post(f"{API}/inspections", params={"wait": 20}, **form(1))
        (audit,) = client.get(REVIEWS, params={"kind": "audit"}).json()["items"]
        assert audit["outcome"] is None
        decided = client.post(f"{REVIEWS}/{audit['id']}/decision", json={"finding": "conforming"})
        assert decided.json()["outcome"]["result"] == "OK"
        assert decided.json()["signature"]["meaning"] == MEANINGS["audit"]


def test_a_decision_from_elsewhere_is_applied_exactly_once(tmp_path: Path) -> None:
    """While the service runs, by another process; while it is down; and after a restart."""
    with serving(tmp_path, Scripted(malformed)) as running, running.client() as client:
        for number in range(3):
            client.post(f"{API}/inspections", params={"wait": 20}, **form(number))
        reviews = client.get(REVIEWS).json()["items"]
        _decide_elsewhere(tmp_path, reviews[0]["id"])
        eventually(lambda: _closed(running, reviews[0]))
    _decide_elsewhere(tmp_path, reviews[1]["id"])
    with serving(tmp_path, Scripted(malformed)) as running, running.client() as client:
        eventually(lambda: _closed(running, reviews[1]))
        client.post(f"{REVIEWS}/{reviews[2]['id']}/decision", json={"finding": "conforming"})
    with serving(tmp_path, Scripted(malformed)) as running:
        eventually(lambda: all(_closed(running, review) for review in reviews))
    with open_store(tmp_path / "audit.db") as store:
        for review in reviews:
            events = _events(store, review["inspection"])
            assert events.count("review.decided") == events.count("inspection.closed") == 1
        assert store.verify_chain().intact


def _decide_elsewhere(folder: Path, review_id: str) -> None:
    decision = ReviewDecision(
        finding=Finding.NONCONFORMING, disposition=Disposition.REWORK, by="carla"
    )
    with open_store(folder / "audit.db") as store:
        store.decide_review(review_id, decision)


def test_reviews_are_listed_page_by_page(anna: httpx.Client, waiting: dict[str, Any]) -> None:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = anna.get(REVIEWS, params={"limit": 2, **cursor}).json()
        found += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == sorted(set(found))
    assert found[-1] == waiting["id"]
    assert anna.get(REVIEWS, params={"product": "pushpins"}).json()["items"] == []
