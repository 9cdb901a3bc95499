"""Asking the store: filters, order, and kept copies."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from lad_agent.errors import StoreReadOnly, UsageError
from lad_agent.judgement import Decision, Result
from lad_agent.store import (
    AuditStore,
    InspectionFilter,
    ReviewFilter,
    export,
    open_store,
    queries,
    search,
)
from lad_agent.store.ledger import timestamp
from lad_agent.store.models import Inspection
from tests.store.populated import populate
from tests.store.samples import (
    DOUBT,
    HOSTILE,
    NOT_OK,
    OK,
    SCRAP,
    intake,
    judgement,
    write_image,
)

ALL = InspectionFilter()
HOSTILE_FIELDS = (
    "product", "part_id", "station", "lot", "reviewer", "model", "recipe_version", "text"
)  # fmt: skip


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


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    with open_store(tmp_path_factory.mktemp("queries") / "audit.db") as store:
        populate(store)
        yield store


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        (InspectionFilter(cause="R1"), "b"),
        (InspectionFilter(cause="R2"), "c"),
        (InspectionFilter(cause="R3"), "e"),  # of f the person said that nothing is wrong
        (InspectionFilter(cause="R"), ""),
        (InspectionFilter(reviewer="anna"), "af"),
        (InspectionFilter(reviewer="bert", product="pushpins"), "e"),
        (InspectionFilter(model="m2"), "f"),
        (InspectionFilter(recipe_version="recipe", lot="L2"), "d"),
        (InspectionFilter(text="washers"), "abcefh"),
        (InspectionFilter(text="BAD washers", station="line-1"), "bc"),
        (InspectionFilter(text="D4:"), "ae"),
        (InspectionFilter(text="wash"), ""),
        (InspectionFilter(text="washers NOT bad"), ""),
        (InspectionFilter(text='of" OR "bad'), ""),
        (InspectionFilter(text="script"), "h"),
        (InspectionFilter(text="\x00\udcffR1"), ""),
        (InspectionFilter(until=datetime.now(UTC) - timedelta(days=1)), ""),
        (InspectionFilter(until=datetime.now(UTC) + timedelta(days=1), cause="R1"), "b"),
        *((InspectionFilter(**{name: HOSTILE}), "h") for name in HOSTILE_FIELDS),
        (InspectionFilter(cause=HOSTILE), ""),
    ],
)
def test_more_filters(filled: AuditStore, wanted: InspectionFilter, parts: str) -> None:
    found = filled.inspections(wanted, newest_first=False)
    names = [inspected.intake.part_id for inspected in found]
    assert names == [HOSTILE if part == "h" else part for part in parts]
    assert filled.count(wanted) == len(parts)
    rows = filled.ask(lambda session: list(export.inspections(session, wanted)))
    assert [row["part_id"] for row in rows] == names


def test_both_databases_find_the_same(filled: AuditStore, each_store: AuditStore) -> None:
    populate(each_store)
    for wanted in (
        ALL,
        *(InspectionFilter(cause=cause) for cause in ("R1", "R2", "R3", HOSTILE)),
        *(InspectionFilter(reviewer=name) for name in ("anna", "bert", HOSTILE)),
        *(
            InspectionFilter(text=words)
            for words in ("BAD washers", "D4:", "wash", "script", '" OR')
        ),
    ):
        here, there = (
            [one.intake.part_id for one in store.inspections(wanted)]
            for store in (each_store, filled)
        )
        assert here == there, wanted


@pytest.mark.parametrize("text", ["", "  ", '"', "* ( ) -"])
def test_a_search_for_nothing_is_refused(filled: AuditStore, text: str) -> None:
    with pytest.raises(UsageError, match="give a word"):
        filled.inspections(InspectionFilter(text=text))


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_text_breaks_the_search(filled: AuditStore, text: str) -> None:
    try:
        found = filled.count(InspectionFilter(text=text))
    except UsageError:
        return
    assert 0 <= found <= 8


def test_pages_join_without_gap_or_overlap(filled: AuditStore) -> None:
    for newest_first in (True, False):
        whole = [one.id for one in filled.inspections(newest_first=newest_first)]
        paged: list[str] = []
        while page := filled.ask(
            lambda session, after=paged[-1] if paged else None, first=newest_first: list(
                queries.inspections(
                    session, InspectionFilter(), newest_first=first, limit=3, after=after
                )
            )
        ):
            paged += [one.id for one in page]
        assert paged == whole
        assert len(whole) == 8


def test_frequent_words_are_found_as_rare_ones_are(
    filled: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("washers", "bad R1", "wash", "script"):
        wanted = InspectionFilter(text=text)
        rare = filled.inspections(wanted, limit=3)
        with monkeypatch.context() as patched:
            patched.setattr(search, "_MANY", 0)
            assert filled.inspections(wanted, limit=3) == rare
            few = filled.ask(lambda s, text=text: search.few(s.connection(), text))
            assert few == (None if rare else "[]")
        assert filled.inspections(wanted, limit=100_000)[:3] == rare


def test_rare_words_are_looked_up_and_not_looked_for_in_every_inspection(
    filled: AuditStore,
) -> None:
    found = search.mentions(Inspection.id, search.words("washers"))
    query = select(Inspection.id).where(found).order_by(Inspection.id.desc())
    with filled._connection() as connection:
        words = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}").all()
    assert "SEARCH inspections" in plan[0].detail


def test_a_clock_that_was_put_back_hides_nothing(
    store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is of the later time, the event of the earlier one."""
    early = datetime.now(UTC) - timedelta(hours=5)
    monkeypatch.setattr("lad_agent.store.ledger.now", lambda: timestamp(early))
    store.take_in(intake("a"))
    since = InspectionFilter(since=early - timedelta(minutes=1))
    until = InspectionFilter(until=early + timedelta(minutes=1))
    for wanted in (since, until):
        assert [one.intake.part_id for one in store.inspections(wanted)] == ["a"]
    after = InspectionFilter(since=early + timedelta(minutes=1))
    assert store.inspections(after) == []


def test_a_sample_is_drawn_by_its_seed(filled: AuditStore) -> None:
    def drawn(count: int, seed: int, wanted: InspectionFilter = ALL) -> list[str]:
        return filled.ask(lambda session: queries.sample(session, wanted, count, seed))

    assert drawn(3, 1) == drawn(3, 1)
    assert set(drawn(3, 1)) < set(drawn(5, 1))
    assert len({tuple(drawn(3, seed)) for seed in range(9)}) > 1
    assert drawn(99, 1) == [one.id for one in filled.inspections(newest_first=False)]
    assert len(drawn(99, 1, InspectionFilter(cause="R1"))) == 1


def test_words_are_found_after_a_rebuild_too(store: AuditStore) -> None:
    populate(store)
    bad = InspectionFilter(text="bad")
    before = store.inspections(bad)
    store.rebuild()
    store.rebuild()
    assert store.inspections(bad) == before
    assert len(before) == 4


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
