"""Asking the store: filters, order, and kept copies."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lad_agent.errors import StoreReadOnly
from lad_agent.judgement import Decision, Result
from lad_agent.store import AuditStore, InspectionFilter, ReviewFilter
from tests.store.samples import DOUBT, NOT_OK, OK, SCRAP, intake, judgement, write_image


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        (InspectionFilter(), ["d", "c", "b", "a"]),
        (InspectionFilter(product="pushpins"), ["d", "c"]),
        (InspectionFilter(result=Result.OK), ["a"]),
        (InspectionFilter(result=Result.NOT_DECIDABLE), ["c"]),
        (InspectionFilter(part_id="b"), ["b"]),
        (InspectionFilter(part_id="b%"), []),
        (InspectionFilter(station="line-2"), ["d"]),
        (InspectionFilter(lot="L1"), ["b"]),
        (InspectionFilter(complete=True), ["c", "b", "a"]),
        (InspectionFilter(complete=False), ["d"]),
        (InspectionFilter(product="screw_bag", result=Result.NOT_OK), ["b"]),
        (InspectionFilter(since=datetime.now(UTC) + timedelta(days=1)), []),
        (InspectionFilter(since=datetime.now(UTC) - timedelta(days=1), lot="L1"), ["b"]),
    ],
)
def test_filters(store: AuditStore, wanted: InspectionFilter, parts: list[str]) -> None:
    store.record(store.take_in(intake("a")).id, OK, judgement())
    store.record(store.take_in(intake("b", lot="L1")).id, NOT_OK, judgement())
    store.escalate(store.take_in(intake("c", product="pushpins")).id, DOUBT, None)
    store.take_in(intake("d", product="pushpins", station="line-2"))
    found = store.inspections(wanted)
    assert [inspected.intake.part_id for inspected in found] == parts
    assert store.count(wanted) == len(parts)
    assert store.inspections(wanted, newest_first=False, limit=1) == found[-1:]


def test_since_is_the_moment_of_intake(store: AuditStore) -> None:
    store.take_in(intake("a"))
    between = datetime.now(UTC)
    store.take_in(intake("b"))
    found = store.inspections(InspectionFilter(since=between.astimezone()))
    assert [inspected.intake.part_id for inspected in found] == ["b"]


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        (ReviewFilter(), ["a", "b", "c"]),
        (ReviewFilter(kind="audit"), ["c"]),
        (ReviewFilter(product="pushpins"), ["b"]),
        (ReviewFilter(station="line-2"), ["b"]),
        (ReviewFilter(decided=False), ["b", "c"]),
        (ReviewFilter(decided=True), ["a"]),
        (ReviewFilter(applied=False), ["a"]),
        (ReviewFilter(applied=True), []),
        (ReviewFilter(since=datetime.now(UTC) + timedelta(days=1)), []),
    ],
)
def test_review_filters(store: AuditStore, wanted: ReviewFilter, parts: list[str]) -> None:
    first = store.escalate(store.take_in(intake("a")).id, DOUBT, None)
    other = intake("b", product="pushpins", station="line-2")
    store.escalate(store.take_in(other).id, DOUBT, None)
    store.record(store.take_in(intake("c")).id, Decision(Result.OK, audit=True), judgement())
    store.decide_review(first, SCRAP)
    assert [review.inspected.intake.part_id for review in store.reviews(wanted)] == parts
    assert len(store.reviews(wanted, limit=1)) == min(1, len(parts))


def test_the_last_attempt(store: AuditStore) -> None:
    assert store.last_attempt(intake()) == 0
    store.take_in(intake())
    store.take_in(intake(attempt=3))
    store.take_in(intake("other", attempt=7))
    assert store.last_attempt(intake()) == 3
    unreadable = intake(image_sha256=None)
    assert store.last_attempt(unreadable) == 0
    store.take_in(unreadable)
    assert store.last_attempt(unreadable) == 1


def test_a_copy_of_what_was_escalated_is_kept(store: AuditStore, tmp_path: Path) -> None:
    image = write_image(tmp_path, "part.PNG")
    sha256 = hashlib.sha256(b"pixels").hexdigest()
    for part in ("a", "b"):
        opened = store.take_in(intake(part, image=str(image), image_sha256=sha256))
        store.escalate(opened.id, DOUBT, None)
    image.unlink()
    assert {review.kept for review in store.reviews()} == {f"{sha256[:2]}/{sha256}.png"}
    assert (store.images / f"{sha256[:2]}/{sha256}.png").read_bytes() == b"pixels"
    (copy,) = (path for path in store.images.rglob("*") if path.is_file())
    assert copy.stat().st_mode == store.file.stat().st_mode  # readable for whom the store is


def test_what_passed_is_not_copied(store: AuditStore, tmp_path: Path) -> None:
    image = write_image(tmp_path)
    sha256 = hashlib.sha256(b"pixels").hexdigest()
    opened = store.take_in(intake(image=str(image), image_sha256=sha256))
    store.record(opened.id, OK, judgement())
    assert not store.images.exists()


@pytest.mark.parametrize("image", ["gone.png", "changed.png", "nul\x00.png", "x" * 5000])
def test_an_image_that_is_gone_or_changed_is_not_kept(
    store: AuditStore, tmp_path: Path, image: str
) -> None:
    write_image(tmp_path, "changed.png", b"other pixels")
    opened = store.take_in(intake(image=str(tmp_path / image)))
    store.escalate(opened.id, DOUBT, None)
    assert store.reviews()[0].kept is None


def test_an_odd_suffix_is_no_part_of_the_copys_name(store: AuditStore, tmp_path: Path) -> None:
    image = write_image(tmp_path, "part.p n;g")
    sha256 = hashlib.sha256(b"pixels").hexdigest()
    opened = store.take_in(intake(image=str(image), image_sha256=sha256))
    store.escalate(opened.id, DOUBT, None)
    assert store.reviews()[0].kept == f"{sha256[:2]}/{sha256}"


def test_a_copy_that_cannot_be_written_leaves_the_part_open(
    store: AuditStore, tmp_path: Path
) -> None:
    image = write_image(tmp_path)
    opened = store.take_in(
        intake(image=str(image), image_sha256=hashlib.sha256(b"pixels").hexdigest())
    )
    store.images.write_text("in the way")
    with pytest.raises(StoreReadOnly, match=r"could not be kept .* run again"):
        store.escalate(opened.id, DOUBT, None)
    assert store.outcome(opened.id) is None
    store.images.unlink()
    store.escalate(opened.id, DOUBT, None)
    assert store.reviews()[0].kept is not None
