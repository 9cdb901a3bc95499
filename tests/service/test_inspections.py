"""Parts by REST: in by form or path, out as results, and every bad input refused by name."""

import hashlib
import io
import json
from pathlib import Path

import httpx
import pytest
from PIL import Image

from lad_agent.inspection import Outcome
from lad_agent.judgement import Reason, Result
from lad_agent.software import versions
from lad_agent.store.software import in_force
from tests.scripted import part
from tests.service.conftest import API, Running, eventually, form, png, problem, serving

POST = f"{API}/inspections"
HOSTILE = "'; DROP TABLE events; --\x00\n\"\\ \u202e<script>alert(1)</script>é\U0001f600 {0} %s"


def test_a_part_is_inspected_and_answered(client: httpx.Client, service: Running) -> None:
    answer = client.post(POST, params={"wait": 20}, **form(1, lot="L1"))
    assert answer.status_code == 201, answer.text
    outcome = Outcome.model_validate(answer.json())
    assert (outcome.part_id, outcome.lot, outcome.station) == ("part-1", "L1", "line-1")
    assert outcome == service.services.store.outcome(outcome.id)
    assert client.get(answer.headers["Location"]).json() == answer.json()
    assert Path(outcome.image).read_bytes() == png(1)
    assert service.services.store.inspection(outcome.id).intake.actor == "otto"


def test_without_waiting_the_result_comes_later(client: httpx.Client) -> None:
    answer = client.post(POST, **form(2))
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["part_id"]) == ("open", "part-2")
    place = answer.headers["Location"]
    assert place == f"{POST}/{answer.json()['id']}"
    eventually(lambda: "result" in client.get(place).json())


def test_the_same_part_is_the_same_inspection(client: httpx.Client, service: Running) -> None:
    first, second = (client.post(POST, params={"wait": 20}, **form(3)) for _ in range(2))
    assert first.json() == second.json()
    reasoner = service.services.reasoner
    assert reasoner.asked.count(first.json()["image_sha256"]) == 1  # type: ignore[attr-defined]


def test_a_key_sent_again_is_the_same_inspection(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post(POST, params={"wait": 20}, headers=headers, **form(4))
    again = client.post(POST, params={"wait": 20}, headers=headers, **form(4))
    assert (again.status_code, again.json()) == (201, first.json())
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    problem(client.post(POST, headers=headers, **form(5)), 422, "key-reused")
    problem(client.post(POST, headers=headers, **form(4, lot="other")), 422, "key-reused")


def test_hostile_words_come_back_as_they_were(client: httpx.Client) -> None:
    said = form(6, HOSTILE, lot=HOSTILE)
    said["files"] = {"image": ("../../<script>.png\r\nX: y", png(6), "image/png")}
    answer = client.post(POST, params={"wait": 20}, **said)
    assert answer.status_code == 201, answer.text
    # A form's line breaks are CR LF: that is how browsers and httpx send them, or keep them.
    assert answer.json()["part_id"].replace("\r\n", "\n") == HOSTILE
    assert ".." not in answer.json()["image"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    found = client.get(POST, params={"part_id": answer.json()["part_id"]}).json()
    assert [item["id"] for item in found["items"]] == [answer.json()["id"]]


def test_on_hold_a_part_goes_to_a_person(client: httpx.Client, service: Running) -> None:
    decided = [n for n in range(60, 80) if hashlib.sha256(png(n)).hexdigest()[0] < "e"]
    service.services.store.put_hold("line-2", "anna", "new supplier", "screw_bag")
    answer = client.post(POST, params={"wait": 20}, **form(decided[0]))
    service.services.store.release_hold("line-2", "bert", "screw_bag")
    assert (answer.json()["result"], answer.json()["reason"]) == ("NotDecidable", "on-hold")
    answer = client.post(POST, params={"wait": 20}, **form(decided[1]))
    assert answer.json()["reason"] is None


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"no picture at all", "unreadable"), (b"", "unreadable"), (png(7)[:300], "unreadable")],
)
def test_what_is_no_image_goes_to_a_person(client: httpx.Client, content: bytes, told: str) -> None:
    said = form(7, f"broken-{len(content)}")
    said["files"] = {"image": ("part.png", content, "image/png")}
    answer = client.post(POST, params={"wait": 20}, **said)
    assert (answer.status_code, answer.json()["reason"]) == (201, told)
    assert answer.json()["result"] == Result.NOT_DECIDABLE


def test_an_image_bomb_goes_to_a_person(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("1", (4000, 4000)).save(file, "PNG")
    assert len(file.getvalue()) < 10_000
    with serving(tmp_path, max_pixels=1_000_000) as running, running.client() as client:
        said = form(8)
        said["files"] = {"image": ("bomb.png", file.getvalue(), "image/png")}
        answer = client.post(POST, params={"wait": 20}, **said)
    assert (answer.status_code, answer.json()["reason"]) == (201, Reason.UNREADABLE)


def test_an_oversized_upload_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, max_upload_mb=0.1) as running, running.client() as client:
        said = form(9)
        said["files"] = {"image": ("large.png", bytes(400_000), "image/png")}
        problem(client.post(POST, **said), 413, "too-large")

        def chunks() -> object:
            for _ in range(40):
                yield bytes(10_000)

        headers = {"Content-Type": "application/json"}
        unnamed = client.post(POST, content=chunks(), headers=headers)  # type: ignore[arg-type]
        problem(unnamed, 413, "too-large")
        assert client.get(POST).json()["items"] == []
        assert running.services.inspecting.ready
        assert "lad_agent_queue 0.0" in client.get("/metrics").text


def test_a_wrong_content_type_is_refused(client: httpx.Client) -> None:
    plain = {"Content-Type": "text/plain"}
    for answer in (
        client.post(POST, content=png(10)),
        client.post(POST, content="x", headers=plain),
    ):
        told = problem(answer, 415, "unsupported-media-type")
        assert "send multipart/form-data with an image" in told["detail"]
    said = form(10)
    said["files"] = {"image": ("part.html", b"<script>", "text/html")}
    told = problem(client.post(POST, **said), 415, "unsupported-media-type")
    assert told["detail"] == "image: text/html is no image"


def test_an_incomplete_form_is_explained(client: httpx.Client) -> None:
    said = form(11)
    told = problem(client.post(POST, data=said["data"], files={"other": b"x"}), 422, "invalid")
    assert "image" in told["detail"]
    del said["data"]["part_id"]
    told = problem(client.post(POST, **said), 422, "invalid")
    assert told["errors"] == [{"where": "part_id", "what": "Field required"}]
    said["data"] |= {"part_id": "p", "colour": "red"}
    assert "colour" in problem(client.post(POST, **said), 422, "invalid")["detail"]
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(client.post(POST, content=b"--y\r\nno form", headers=broken), 400, "bad-request")
    broken = {"Content-Type": "multipart/form-data"}
    problem(client.post(POST, content=b"--y", headers=broken), 400, "bad-request")
    broken = {"Content-Type": "application/json"}
    problem(client.post(POST, content=b"{", headers=broken), 400, "bad-request")
    problem(client.post(POST, json=[1]), 422, "invalid")


def test_an_unknown_recipe_is_refused_with_the_nearest(client: httpx.Client) -> None:
    told = problem(client.post(POST, **form(12, recipe="screwbag")), 404, "unknown-recipe")
    assert "did you mean 'screw_bag'?" in told["detail"]
    problem(client.get(f"{API}/recipes/nothing"), 404, "not-found")
    (recipe,) = client.get(f"{API}/recipes").json()
    assert (recipe["product"], recipe["references"]) == ("screw_bag", 1)
    assert client.get(f"{API}/recipes/screw_bag").json() == recipe


def test_a_path_must_lie_below_the_allowed_roots(tmp_path: Path) -> None:
    roots, secret = tmp_path / "roots", tmp_path / "secret.png"
    roots.mkdir()
    part("inside", 1).save(roots / "inside.png")
    part("outside", 1).save(secret)
    (roots / "link.png").symlink_to(secret)
    (roots / "folder").symlink_to(tmp_path)
    (roots / "loop.png").symlink_to(roots / "loop.png")
    with serving(tmp_path, image_roots=(roots,)) as running, running.client() as client:
        said = {"recipe": "screw_bag", "part_id": "p", "path": str(roots / "inside.png")}
        answer = client.post(POST, json=said, params={"wait": 20})
        assert (answer.status_code, answer.json()["image"]) == (201, str(roots / "inside.png"))
        for path in (
            secret,
            roots / "link.png",
            roots / "folder" / "secret.png",
            roots / ".." / "secret.png",
            roots / "loop.png",
            roots / "none.png",
            roots,
            "relative.png",
            "nul\0.png",
        ):
            refused = client.post(POST, json=said | {"path": str(path)})
            problem(refused, 403, "path-not-allowed")
    with serving(tmp_path) as running, running.client() as client:
        problem(client.post(POST, json=said), 403, "path-not-allowed")


def test_inspections_are_listed_page_by_page(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        for number in range(5):
            client.post(POST, params={"wait": 20}, **form(number, lot=f"L{number % 2}"))
        found, cursor = [], None
        while True:
            page = client.get(POST, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
            found += page.json()["items"]
            cursor = page.json()["next"]
            if cursor is None:
                break
        assert [item["part_id"] for item in found] == [f"part-{n}" for n in (4, 3, 2, 1, 0)]
        lot = client.get(POST, params={"lot": "L1", "complete": True}).json()["items"]
        assert [item["part_id"] for item in lot] == ["part-3", "part-1"]
        assert client.get(POST, params={"since": "2999-01-01T00:00:00Z"}).json()["items"] == []
        for number in ("0.5", "-1", "1e9"):
            problem(client.get(POST, params={"since": number}), 422, "invalid")
        problem(client.get(POST, params={"limit": 0}), 422, "invalid")
        problem(client.get(POST, params={"result": "Good"}), 422, "invalid")


def test_what_is_not_there_is_a_problem(client: httpx.Client) -> None:
    told = problem(client.get(f"{POST}/none"), 404, "not-found")
    assert told["detail"].startswith("no inspection 'none'")
    problem(client.get(f"{API}/nothing"), 404, "not-found")
    refused = client.put(POST)
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["Allow"] == "GET, POST"
    assert client.put(f"{API}/reviews/x/claim").headers["Allow"] == "DELETE, POST"


def test_results_are_told_as_they_come_and_again_from_where_one_left(
    client: httpx.Client,
) -> None:
    with client.stream("GET", f"{API}/events") as stream:
        lines = stream.iter_lines()
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        next(lines)
        posted = client.post(POST, params={"wait": 20}, **form(20)).json()
        first = _event(lines)
        assert (first["event"], json.loads(first["data"])) == ("result", posted)
    posted = client.post(POST, params={"wait": 20}, **form(21)).json()
    headers = {"Last-Event-ID": first["id"]}
    with client.stream("GET", f"{API}/events", headers=headers) as stream:
        assert json.loads(_event(stream.iter_lines())["data"])["id"] == posted["id"]


def _event(lines: object) -> dict[str, str]:
    """The next event that is no comment."""
    found: dict[str, str] = {}
    for line in lines:  # type: ignore[attr-defined]
        if not line and found:
            return found
        name, _, value = line.partition(": ")
        if name:
            found[name] = value
    raise AssertionError("the stream ended")


def test_the_ledger_tells_what_versions_judged(service: Running) -> None:
    with service.services.store._connection() as connection:
        assert in_force(connection, "line-1") == versions()


def test_probes_and_figures(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "model": "scripted"}
    client.post(POST, params={"wait": 20}, **form(30))
    figures = client.get("/metrics").text
    for name in (
        'lad_agent_inspection_seconds_count{product="screw_bag"}',
        'lad_agent_results_total{product="screw_bag",result="',
        "lad_agent_escalation_share",
        "lad_agent_queue 0.0",
    ):
        assert name in figures
