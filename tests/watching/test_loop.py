"""The hot folder at work, over a real store and real checkpoints."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lad_agent.errors import StoreLocked
from lad_agent.graphs.checkpoints import pauses
from lad_agent.graphs.runner import Order
from lad_agent.images import file_sha256
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Finding, Reason, Result
from lad_agent.store import AsyncStore, AuditStore, ReviewFilter, open_store
from lad_agent.watching import HotFolder, Moved, run
from tests.scripted import Scripted, bad, good, malformed, write_parts, write_recipe

ORDER = Order(station="line-1", actor="tester", in_flight=4)


@dataclass
class Floor:
    """A hot folder with its store; `watching` runs over it."""

    hot: HotFolder
    audit: AuditStore
    reasoner: Scripted = field(default_factory=lambda: Scripted(good))
    moved: list[Moved] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with (
            AsyncStore(self.audit) as store,
            pauses(self.audit.file.with_name("pauses.db")) as saver,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(
                run(
                    self.hot,
                    ORDER,
                    audit=self.audit,
                    store=store,
                    reasoner=self.reasoner,
                    checkpointer=saver,
                    on_moved=self.moved.append,
                    say=self.said.append,
                    stop=stop,
                )
            )
            try:
                yield
            finally:
                stop.set()

    def lying(self) -> list[str]:
        """Every picture's place in the folder."""
        root = self.hot.root
        return sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob("*.png")
            if path.name != "reference.png"
        )


@pytest.fixture
async def floor(tmp_path: Path) -> AsyncIterator[Floor]:
    write_recipe(tmp_path / "hot")
    with open_store(tmp_path / "audit.db") as audit:
        yield Floor(HotFolder(tmp_path / "hot", settle_s=0.1), audit)


async def test_what_comes_in_is_kept_recorded_and_moved(floor: Floor) -> None:
    lies_there = write_parts(floor.hot.root, 1, name="early")[0]
    digest = file_sha256(lies_there)
    async with floor.watching():
        await _until(lambda: len(floor.moved) == 1)
        floor.reasoner.script = malformed
        write_parts(floor.hot.root / "tray", 1, name="late")
        (floor.hot.root / "broken.png").write_bytes(b"no picture")
        await _until(lambda: len(floor.moved) == 3)
    assert floor.lying() == ["done/early-000.png", "failed/broken.png", "review/tray/late-000.png"]
    found = {one.intake.part_id: one for one in floor.audit.inspections()}
    assert found.keys() == {"hot/early-000.png", "hot/tray/late-000.png", "hot/broken.png"}
    kept = Path(found["hot/early-000.png"].intake.image)
    assert kept.is_relative_to(floor.audit.images)
    assert file_sha256(kept) == digest
    assert len(floor.audit.reviews()) == 2


async def test_the_same_file_again_is_the_same_inspection(floor: Floor) -> None:
    (path,) = write_parts(floor.hot.root, 1)
    content = path.read_bytes()
    async with floor.watching():
        await _until(lambda: len(floor.moved) == 1)
        path.write_bytes(content)
        await _until(lambda: len(floor.moved) == 2)
    async with floor.watching():
        path.write_bytes(content)
        await _until(lambda: len(floor.moved) == 3)
    assert [one.done.earlier for one in floor.moved] == [False, True, True]
    assert len(floor.audit.inspections()) == len(floor.reasoner.asked) == 1
    assert floor.lying() == ["done/part-000.png"]


async def test_another_picture_under_the_same_name_is_another_inspection(floor: Floor) -> None:
    first, second = (write_parts(floor.hot.root.parent / name, 1)[0] for name in ("a", "b"))
    async with floor.watching():
        first.rename(floor.hot.root / "part.png")
        await _until(lambda: len(floor.moved) == 1)
        floor.reasoner.script = bad
        second.rename(floor.hot.root / "part.png")
        await _until(lambda: len(floor.moved) == 2)
    assert [one.done.outcome.result for one in floor.moved] == [Result.OK, Result.NOT_OK]
    assert len(floor.lying()) == 2


async def test_what_a_person_decides_leaves_review(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lad_agent.watching.loop.DECIDED_S", 0.1)
    floor.reasoner.script = malformed
    write_parts(floor.hot.root / "tray", 2)
    async with floor.watching():
        await _until(lambda: len(floor.moved) == 2)
        names = ["tray/part-000.png", "tray/part-001.png"]
        assert floor.lying() == [f"review/{name}" for name in names]
        decided = _decide_elsewhere(floor.audit, f"hot/{names[0]}")
        await _until(lambda: floor.lying() == [f"done/{names[0]}", f"review/{names[1]}"])
        assert floor.said == [f"{floor.hot.root}/done/{names[0]}: decided by a person"]
    # What is decided while nothing watches is found out at the next start.
    _decide_elsewhere(floor.audit, f"hot/{names[1]}")
    assert f"review/{names[1]}" in floor.lying()
    async with floor.watching():
        await _until(lambda: floor.lying() == [f"done/{name}" for name in names])
    assert floor.audit.review(decided).decision is not None
    assert len(floor.audit.inspections()) == 2


async def test_what_one_of_two_inspections_leaves_open_stays_in_review(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lad_agent.watching.loop.DECIDED_S", 0.05)
    floor.reasoner.script = malformed
    (path,) = write_parts(floor.hot.root, 1)
    content = path.read_bytes()
    async with floor.watching():
        await _until(lambda: len(floor.moved) == 1)
    write_recipe(floor.hot.root, min_confidence=0.7)
    async with floor.watching():
        path.write_bytes(content)
        await _until(lambda: len(floor.moved) == 2)
        first, second = floor.audit.reviews()
        _decide_elsewhere(floor.audit, review_id=first.id)
        await asyncio.sleep(0.5)
        assert floor.lying() == ["review/part-000.png"]
        _decide_elsewhere(floor.audit, review_id=second.id)
        await _until(lambda: floor.lying() == ["done/part-000.png"])


async def test_on_hold_every_part_goes_to_review(floor: Floor) -> None:
    floor.audit.put_hold("line-1", "anna", "new supplier", "screw_bag")
    write_parts(floor.hot.root, 2)
    async with floor.watching():
        await _until(lambda: len(floor.moved) == 2)
        floor.audit.release_hold("line-1", "anna", "screw_bag")
        write_parts(floor.hot.root, 1, name="later")
        await _until(lambda: len(floor.moved) == 3)
    assert [one.done.outcome.reason for one in floor.moved] == [
        Reason.ON_HOLD,
        Reason.ON_HOLD,
        None,
    ]
    assert floor.lying() == ["done/later-000.png", "review/part-000.png", "review/part-001.png"]


async def test_at_the_stop_what_is_in_flight_is_finished(floor: Floor) -> None:
    floor.reasoner.delay_s = 0.2
    write_parts(floor.hot.root, 9)
    async with floor.watching():
        await _until(lambda: bool(floor.reasoner.asked))
    assert 0 < len(floor.moved) <= 2 * ORDER.in_flight
    assert all(one.outcome is not None for one in floor.audit.inspections())
    async with floor.watching():
        await _until(lambda: len(floor.moved) == 9)
    assert len(floor.audit.inspections()) == len(floor.reasoner.asked) == 9


async def test_a_store_that_fails_is_told_of_once_and_tried_again(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lad_agent.watching.loop.RETRY_S", 0.1)
    keep = floor.audit.keep_content
    failures = iter([True, True])

    def fails(content: bytes, suffix: str) -> Path:
        if next(failures, False):
            raise StoreLocked("audit.db: another process holds the audit store")
        return keep(content, suffix)

    monkeypatch.setattr(floor.audit, "keep_content", fails)
    (path,) = write_parts(floor.hot.root, 1)
    async with floor.watching():
        await _until(lambda: len(floor.moved) == 1)
    assert floor.said == [f"audit.db: another process holds the audit store; {path} is tried again"]


def _decide_elsewhere(audit: AuditStore, part_id: str = "", *, review_id: str = "") -> str:
    """As another process does, over a connection of its own. Returns the review's id."""
    with open_store(audit.file, create=False) as other:
        for review in other.reviews(ReviewFilter(decided=False)):
            if review.inspected.intake.part_id == part_id:
                review_id = review.id
        other.decide_review(review_id, ReviewDecision(finding=Finding.CONFORMING, by="anna"))
    return review_id


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.02)
