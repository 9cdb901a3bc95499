"""The pages without a browser: what they show, what they take, what they refuse."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Disposition, Finding, Result
from lad_agent.service import charts, passwords, shown
from lad_agent.store import AuditStore, ReviewFilter, access, open_store, review_queue
from lad_agent.store.review_queue import Decided
from tests.service import floor

HOSTILE = "<script>alert(1)</script>\"'>\u202e{{7*7}}\udcff.png"
SCRAP = ReviewDecision(
    finding=Finding.NONCONFORMING,
    disposition=Disposition.SCRAP,
    rule="R1",
    comment="one washer",
    by="anna",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(tmp_path / "audit.db") as opened:
        yield opened


@pytest.fixture
def web(store: AuditStore) -> Iterator[httpx.Client]:
    with (
        floor.served(floor.services(store)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def review_of(store: AuditStore, part: floor.Part) -> str:
    return store.history(part.inspection_id).reviews[0].id


def scrapped(web: httpx.Client, store: AuditStore, pictures: Path) -> tuple[floor.Part, str]:
    """A part that waited and was scrapped on its page, and its review."""
    part = floor.escalate(store, pictures, 0)
    review = review_of(store, part)
    send(web, f"/reviews/{review}/decide", decision="scrap", rule="R1")
    return part, review


def send(web: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Fill in a form of a page, which knows the token."""
    token = re.search(r'name="csrf" value="([^"]+)"', web.get("/login").text)
    assert token
    return web.post(path, data={"csrf": token[1], **fields})


def wait_for(done: Callable[[], bool]) -> None:
    for _ in range(200):
        if done():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_every_page_forbids_foreign_and_inline_script(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    part = floor.escalate(store, pictures, 0)
    review = review_of(store, part)
    missing = "/reviews/00000000-0000-7000-8000-000000000000"
    for path in ("/reviews", f"/reviews/{review}", "/dashboard", "/login", missing):
        answer = web.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=|javascript:", answer.text), (
            path
        )
        assert "http" not in re.sub(r"http-equiv", "", answer.text).replace("http://www.w3", ""), (
            path
        )


def test_hostile_names_are_shown_and_never_markup(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    part = floor.escalate(store, pictures, 0, name=HOSTILE, told=HOSTILE)
    review = review_of(store, part)
    for path in ("/reviews", f"/reviews/{review}"):
        text = web.get(path).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)" in text
        assert "{{7*7}}" in text
        assert "\\udcff" in text


def test_a_recipe_that_a_newer_station_recorded_is_shown(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    review = review_of(store, floor.escalate(store, pictures, 0))
    newer = text("""UPDATE recipes SET content = json_set(content, '$.policy.patience', 3)""")
    store.transact([lambda unit: unit.connection.execute(newer)])
    answer = web.get(f"/reviews/{review}")
    assert answer.status_code == 200
    assert "Anomaly score" in answer.text


def test_the_queue_puts_doubt_and_age_first_and_counts_by_kind(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    parts = [floor.escalate(store, pictures, n) for n in range(6)]
    floor.audit(store, pictures, 6)
    queue = store.ask(review_queue.queue)
    unsure = [one.uncertainty for one in queue]
    assert unsure == sorted(unsure, reverse=True)
    page = web.get("/reviews").text
    assert page.index(queue[0].part_id) < page.index(queue[1].part_id)
    assert "blind audit" in page
    narrowed = web.get("/reviews", params={"kind": "audit"}).text
    assert parts[0].part_id not in narrowed
    assert re.search(r'<span class="figure">1</span>', narrowed)


def test_a_decision_is_recorded_and_the_next_part_follows(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    part, other = (floor.escalate(store, pictures, n) for n in (0, 2))
    assert part.anomalous
    review = review_of(store, part)
    page = web.get(f"/reviews/{review}").text
    assert re.search(rf'value="{part.rule}"[^>]*checked', page)
    assert 'class="fault"' in page or not store.outcome(part.inspection_id).places
    answer = send(
        web, f"/reviews/{review}/decide", decision="scrap", rule=part.rule or "", comment=" bent "
    )
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/reviews/{review_of(store, other)}"
    decision = store.review(review).decision
    assert decision is not None
    assert (decision.finding, decision.disposition) == (Finding.NONCONFORMING, Disposition.SCRAP)
    assert (decision.rule, decision.comment, decision.by) == (part.rule, "bent", "olga")
    last = send(web, f"/reviews/{review_of(store, other)}/decide", decision="rework")
    assert last.headers["Location"] == "/reviews"


@pytest.mark.parametrize(("number", "decision"), [(0, "conforming"), (1, "scrap")])
def test_a_finding_against_the_reasoner_needs_a_reason(
    web: httpx.Client, store: AuditStore, pictures: Path, number: int, decision: str
) -> None:
    review = review_of(store, floor.escalate(store, pictures, number))
    refused = send(web, f"/reviews/{review}/decide", decision=decision, comment="  ")
    assert refused.status_code == 422
    assert "goes against the reasoner" in refused.text
    assert store.review(review).decision is None
    taken = send(web, f"/reviews/{review}/decide", decision=decision, comment="I saw it")
    assert taken.status_code == 303
    assert store.review(review).decision is not None


def test_an_audit_is_blind_until_it_is_decided(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    part = floor.audit(store, pictures, 0)
    assert part.rule
    review = review_of(store, part)
    before = web.get(f"/reviews/{review}").text
    hidden = ("<em>in question", "Confidence", "anomalous", "The reasoner says", 'class="fault"')
    for told in hidden:
        assert told not in before, told
    assert re.search(r'value=""[^>]*checked', before)
    # Asking for a reason would tell what the reasoner said.
    answer = send(web, f"/reviews/{review}/decide", decision="conforming")
    assert answer.status_code == 303
    after = web.get(f"/reviews/{review}").text
    assert "The reasoner says: anomalous" in after
    assert "<em>in question" in after


def test_undo_appends_and_never_erases(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    part, review = scrapped(web, store, pictures)
    undone = send(web, f"/reviews/{review}/undo")
    assert undone.headers["Location"] == f"/reviews/{review}"
    assert store.review(review).decision is None
    types = [event.type for event in store.history(part.inspection_id).events]
    assert types[-2:] == ["review.decided", "review.undone"]
    page = web.get(f"/reviews/{review}").text
    assert "olga: scrap, R1" in page
    assert "olga: taken back" in page


def test_an_audit_that_was_taken_back_does_not_tell_what_was_found(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    review = review_of(store, floor.audit(store, pictures, 0))
    store.decide_review(review, SCRAP.model_copy(update={"comment": "bent washer"}))
    assert "anna: scrap, R1" in web.get(f"/reviews/{review}").text
    store.undo_review(review, "anna", "the washer is straight")
    page = web.get(f"/reviews/{review}").text
    assert "anna: decided" in page
    assert "anna: taken back" in page
    for told in ("scrap, R1", "bent washer", "the washer is straight"):
        assert told not in page


def test_the_shift_and_how_the_part_ended_before_stand_on_top(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    floor.decide_alone(store, pictures, 0, name="P-1")
    again = floor.escalate(store, pictures, 6, name="P-1", attempt=2)
    scrapped(web, store, pictures)
    page = web.get(f"/reviews/{review_of(store, again)}").text
    assert "attempt 2 · before: <bdi>NotOK, R" in page
    assert "<strong>1</strong> decided this shift" in page
    assert '<progress max="2" value="1"' in page


def test_a_decision_undone_after_it_was_applied_is_taken_again(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    part, review = scrapped(web, store, pictures)

    def closed() -> bool:
        return store.inspection(part.inspection_id).closed_at is not None

    wait_for(closed)
    send(web, f"/reviews/{review}/undo")
    assert not closed()
    send(web, f"/reviews/{review}/decide", decision="conforming", comment="it was the light")
    wait_for(closed)
    outcome = store.outcome(part.inspection_id)
    assert outcome is not None
    assert outcome.final is Result.OK
    types = [event.type for event in store.history(part.inspection_id).events]
    assert types.count("inspection.closed") == 2


def test_nobody_takes_back_the_decision_of_another(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    review = review_of(store, floor.escalate(store, pictures, 0))
    store.decide_review(review, SCRAP)
    send(web, f"/reviews/{review}/undo")
    assert store.review(review).decision == SCRAP


def test_who_is_late_is_told_who_decided(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    review = review_of(store, floor.escalate(store, pictures, 0))
    store.decide_review(review, SCRAP)
    answer = send(web, f"/reviews/{review}/decide", decision="rework", comment="mine")
    page = web.get(answer.headers["Location"]).text
    assert "Your decision was not taken" in page
    assert "anna" in page
    assert store.review(review).decision == SCRAP


def test_a_part_in_the_hand_of_another_is_left_out_and_refused(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    held, free = (review_of(store, floor.escalate(store, pictures, n)) for n in (0, 2))
    store.claim_review(held, "anna", 60)
    assert web.get("/reviews/next").headers["Location"] == f"/reviews/{free}"
    assert 'name="decision"' not in web.get(f"/reviews/{held}").text
    assert "in the hand of anna" in send(web, f"/reviews/{held}/claim").text
    answer = send(web, f"/reviews/{held}/decide", decision="scrap")
    assert "Your decision was not taken" in web.get(answer.headers["Location"]).text
    assert store.review(held).decision is None


def test_a_claim_is_taken_and_put_back(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    review = review_of(store, floor.escalate(store, pictures, 0))
    assert "yours until" in send(web, f"/reviews/{review}/claim").text
    assert store.ask(review_queue.queue)[0].claimed_by == "olga"
    assert send(web, f"/reviews/{review}/release").status_code == 204
    assert store.ask(review_queue.queue)[0].claimed_by is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"csrf": "forged", "decision": "scrap"}, 403),
        ({"decision": "scrap"}, 403),
        ({"decision": "explode"}, 400),
        ({"decision": "scrap", "rule": "R99"}, 422),
        ({"decision": "scrap", "comment": "x" * 2001}, 422),
        ({}, 422),
    ],
)
def test_forms_that_no_page_makes_change_nothing(
    web: httpx.Client, store: AuditStore, pictures: Path, fields: dict[str, str], status: int
) -> None:
    review = review_of(store, floor.escalate(store, pictures, 0))
    path = f"/reviews/{review}/decide"
    real = status != 403
    answer = send(web, path, **fields) if real else web.post(path, data=fields)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert store.review(review).decision is None


def test_pictures_come_by_inspection_and_only_as_they_were_judged(
    web: httpx.Client, store: AuditStore, tmp_path: Path
) -> None:
    kept = floor.escalate(store, tmp_path, 0)
    lying = floor.audit(store, tmp_path, 1)
    passed = floor.decide_alone(store, tmp_path, 2)
    content = (tmp_path / "screw_bag-000.png").read_bytes()
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"another")
    shown_one = web.get(f"/inspections/{kept.inspection_id}/image")
    assert (shown_one.content, shown_one.headers["Content-Type"]) == (content, "image/png")
    again = {"If-None-Match": shown_one.headers["ETag"]}
    assert web.get(f"/inspections/{kept.inspection_id}/image", headers=again).status_code == 304
    assert web.get(f"/inspections/{lying.inspection_id}/image").status_code == 200
    assert web.get(f"/inspections/{passed.inspection_id}/image").status_code == 404
    assert web.get("/inspections/..%2f..%2fetc%2fpasswd/image").status_code == 404
    first = web.get(f"/inspections/{kept.inspection_id}/references/0")
    assert first.headers["Content-Type"] == "image/png"
    assert web.get(f"/inspections/{kept.inspection_id}/references/1").status_code == 404
    page = web.get(f"/reviews/{review_of(store, lying)}")
    assert page.status_code == 200


def test_the_dashboard_counts_parts_and_audits(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    for n in range(0, 9):
        floor.decide_alone(store, pictures, n)
    floor.escalate(store, pictures, 9)
    for n in (13, 15):  # both good, and passed; one is found bad
        review = review_of(store, floor.audit(store, pictures, n))
        if n == 15:
            store.decide_review(review, SCRAP)
        else:
            decision = ReviewDecision(finding=Finding.CONFORMING, by="anna")
            store.decide_review(review, decision)
    text = re.sub(r"\s+", " ", web.get("/dashboard").text)
    assert "<dt>parts</dt><dd>12</dd>" in text
    assert "<dt>sent to people</dt><dd>8.3%</dd>" in text
    assert "<dt>audited blind</dt><dd>2</dd>" in text
    # Exact: one bad of one leaves the rate anywhere above 0.025.
    assert "bad among the passed: 100.0% (2.5% to 100.0%), 1 of 1 audited" in text
    assert web.get("/dashboard?hours=9").status_code == 404
    assert "No part was inspected" not in text


def test_an_empty_store_has_pages_too(web: httpx.Client) -> None:
    assert "Nothing waits" in web.get("/reviews").text
    assert "No part was inspected" in web.get("/dashboard").text
    assert web.get("/reviews/next").headers["Location"] == "/reviews"
    assert web.get("/").headers["Location"] == "/reviews"
    assert "This service is open" in web.get("/reviews").text


def test_viewers_look_and_strangers_sign_in(
    web: httpx.Client, store: AuditStore, pictures: Path
) -> None:
    review = review_of(store, floor.escalate(store, pictures, 0))
    hashed = passwords.hashed("a long password")
    store.transact([lambda unit: access.add_user(unit, "line-1", "olga", "vera", "viewer", hashed)])
    stranger = web.get(f"/reviews/{review}")
    assert stranger.status_code == 303
    assert stranger.headers["Location"].startswith("/login?next=")
    assert web.get("/reviews", headers={"HX-Request": "true"}).headers["HX-Redirect"]
    assert web.get(f"/inspections/{store.review(review).inspected.id}/image").status_code == 303
    wrong = send(web, "/login", name="vera", password="a wrong password")
    assert "wrong" in wrong.text
    entered = send(
        web, "/login", name="vera", password="a long password", next=f"/reviews/{review}"
    )
    assert entered.headers["Location"] == f"/reviews/{review}"
    page = web.get(f"/reviews/{review}").text
    assert 'name="decision"' not in page
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token
    answer = web.post(f"/reviews/{review}/decide", data={"csrf": token[1], "decision": "scrap"})
    assert answer.status_code == 403
    assert store.reviews(ReviewFilter(decided=True)) == []


def test_where_the_setting_asks_for_it_a_decision_is_signed(
    store: AuditStore, pictures: Path
) -> None:
    review = review_of(store, floor.escalate(store, pictures, 0))
    hashed = passwords.hashed("a long password")
    store.transact(
        [lambda unit: access.add_user(unit, "line-1", "olga", "rosa", "reviewer", hashed)]
    )
    made = floor.services(store, sign_with_password=True)
    with floor.served(made) as url, httpx.Client(base_url=url) as web:
        send(web, "/login", name="rosa", password="a long password")
        path = f"/reviews/{review}"
        page = web.get(path).text
        assert 'name="password"' in page
        token = re.search(r'name="csrf" value="([^"]+)"', page)
        assert token
        fields = {"csrf": token[1], "decision": "scrap", "rule": "R1"}
        for wrong in ({}, {"password": "a wrong password"}):
            answer = web.post(f"{path}/decide", data={**fields, **wrong})
            assert answer.status_code == 422
            assert "password" in answer.text
            assert store.review(review).decision is None
        signed = web.post(f"{path}/decide", data={**fields, "password": "a long password"})
        assert signed.status_code == 303
    decision = store.review(review).decision
    assert decision is not None
    assert decision.by == "rosa"


def test_thresholds_that_stand_close_do_not_cover_each_other() -> None:
    drawn = charts.scale(
        0.5, [(0.45, "pass"), (0.55, "reject")], name="score", start="normal", end="bad"
    )
    assert re.search(r'text-anchor="end">pass 0.45', drawn)
    assert re.search(r'text-anchor="start">reject 0.55', drawn)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=40), st.text(max_size=20))
def test_charts_are_well_formed_whatever_they_are_given(
    shares: list[float | None], name: str
) -> None:
    columns = [charts.Column(name, ok=n, not_ok=n // 2, waiting=1) for n in range(len(shares))]
    for drawn in (charts.rates([("bad", shares)], name=name), charts.by_hour(columns, name=name)):
        # Characters that XML cannot hold are no matter of markup.
        text = re.sub(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", "", drawn)
        assert ElementTree.fromstring(text).tag == "svg"


def test_a_shift_begins_after_a_break() -> None:
    moment = datetime(2026, 1, 5, 12, tzinfo=UTC)

    def decided(*minutes_ago: int) -> list[Decided]:
        times = [(moment - timedelta(minutes=m)).isoformat() for m in minutes_ago]
        return [Decided("r", "i", "p", at, Finding.CONFORMING, None) for at in times]

    assert shown.shift(decided(1, 2, 3, 4, 5, 200), moment).decided == 5
    assert shown.shift(decided(1, 2, 3, 4, 5, 200), moment).per_hour == pytest.approx(48)
    idle = shown.shift(decided(90), moment)
    assert (idle.decided, idle.last is not None) == (0, True)
    assert shown.shift([], moment).last is None
