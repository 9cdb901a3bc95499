"""The hot folder's files: when they are whole, whose recipe is theirs, where they go."""

import os
from pathlib import Path

import pytest
from PIL import Image

from lad_agent.errors import UsageError
from lad_agent.images import file_sha256
from lad_agent.judgement import Reason, Result
from lad_agent.watching.folder import AGAIN_S, PATIENCE, Arrival, HotFolder
from tests.scripted import part, write_parts, write_recipe
from tests.test_payload import outcome

HOSTILE = "<script>alert(1)<／script> $(touch x) 'a\";--\n\x1b[2J é.png"


@pytest.fixture
def hot(tmp_path: Path) -> HotFolder:
    write_recipe(tmp_path / "hot")
    return HotFolder(tmp_path / "hot", settle_s=1.0)


def test_a_file_is_whole_when_nothing_changes_any_more(hot: HotFolder) -> None:
    (path,) = write_parts(hot.root, 1)
    assert hot.arrivals(0.0) == ([], [])
    assert hot.is_settling
    with path.open("ab") as file:
        file.write(b"more")
    assert hot.arrivals(0.9) == ([], [])
    assert hot.arrivals(1.5) == ([], [])
    assert _paths(hot, 2.0) == [path]
    assert hot.arrivals(2.0, busy={path}) == ([], [])


def test_a_half_written_picture_is_waited_for_longer(hot: HotFolder) -> None:
    (path,) = write_parts(hot.root, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert [_paths(hot, at) for at in (0.0, 1.5, PATIENCE - 0.1)] == [[], [], []]
    path.write_bytes(whole)
    assert [_paths(hot, at) for at in (PATIENCE, PATIENCE + 1.0)] == [[], [path]]


def test_what_never_becomes_a_picture_is_taken_in_the_end(hot: HotFolder) -> None:
    path = hot.root / "part.png"
    path.write_bytes(b"")
    assert _paths(hot, 0.0) == _paths(hot, PATIENCE - 0.1) == []
    assert _paths(hot, float(PATIENCE)) == [path]


def test_first_come_first_served_and_no_more_than_asked_for(hot: HotFolder) -> None:
    (late,) = write_parts(hot.root, 1, name="a")
    late.rename(hot.root.parent / "later.png")
    first = write_parts(hot.root, 2, name="b")
    assert _paths(hot, 0.0) == []
    (hot.root.parent / "later.png").rename(late)
    assert _paths(hot, 0.5) == []
    assert _paths(hot, 2.0) == [*first, late]
    found, _ = hot.arrivals(2.0, limit=1)
    assert [one.item.image for one in found] == first[:1]


def test_only_pictures_that_came_in_are_parts(hot: HotFolder, tmp_path: Path) -> None:
    write_parts(hot.root / "done", 1)
    write_parts(hot.root / ".hidden", 1)
    write_parts(hot.root / "ground_truth", 1)
    (hot.root / "notes.txt").write_text("no part")
    (hot.root / ".part.png").write_bytes(b"")
    (secret,) = write_parts(tmp_path / "elsewhere", 1)
    (hot.root / "link.png").symlink_to(secret)
    os.mkfifo(hot.root / "pipe.png")
    (path,) = write_parts(hot.root / "tray" / "done", 1)
    hot.arrivals(0.0)
    assert _paths(hot, 2.0) == [path]


def test_each_part_is_named_by_its_place_as_inspect_names_it(hot: HotFolder) -> None:
    write_parts(hot.root / "tray", 1)
    hot.arrivals(0.0)
    (found,), _ = hot.arrivals(2.0)
    assert found.item.part_id == "hot/tray/part-000.png"
    assert found.item.recipe.path == hot.root / "recipe.yaml"


def test_a_folder_named_after_a_product_needs_no_recipe(tmp_path: Path) -> None:
    root = tmp_path / "line"
    shipped, own, unknown = (root / name for name in ("pushpins", "screw_bag", "cogs"))
    write_recipe(own, "screw_bag")
    for folder in (shipped / "cam-1", own, unknown):
        write_parts(folder, 1)
    hot = HotFolder(root, settle_s=1.0)
    hot.arrivals(0.0)
    found, faults = hot.arrivals(2.0)
    recipes = {one.item.part_id: one.item.recipe for one in found}
    assert recipes.keys() == {"line/pushpins/cam-1/part-000.png", "line/screw_bag/part-000.png"}
    assert recipes["line/pushpins/cam-1/part-000.png"].product == "pushpins"
    assert recipes["line/screw_bag/part-000.png"].path == own / "recipe.yaml"
    assert len(faults) == 1
    assert "cogs: no recipe.yaml" in faults[0]
    write_recipe(unknown)
    assert _paths(hot, 3.0, but=found) == []
    assert _paths(hot, 2.0 + AGAIN_S, but=found) == [unknown / "part-000.png"]


def test_one_recipe_for_all_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path / "line", 1)
    hot = HotFolder(tmp_path / "line", "juice_bottle", settle_s=1.0)
    hot.arrivals(0.0)
    (found,), faults = hot.arrivals(2.0)
    assert (found.item.recipe.product, faults) == ("juice_bottle", [])


@pytest.mark.parametrize(
    ("result", "reason", "folder"),
    [
        (Result.OK, None, "done"),
        (Result.NOT_OK, None, "done"),
        (Result.NOT_DECIDABLE, Reason.LOW_CONFIDENCE, "review"),
        (Result.NOT_DECIDABLE, Reason.UNREADABLE, "failed"),
    ],
)
def test_a_file_moves_to_where_its_result_belongs(
    hot: HotFolder, result: Result, reason: Reason | None, folder: str
) -> None:
    arrival = _arrival(hot, hot.root / "tray" / "part.png")
    recorded = outcome(result=result, reason=reason)
    assert hot.move(arrival, recorded) == hot.root / folder / "tray" / "part.png"
    assert not arrival.item.image.exists()
    assert hot.move(arrival, recorded) is None


def test_nothing_in_done_is_ever_lost(hot: HotFolder) -> None:
    path = hot.root / "part.png"
    places = []
    for number in (1, 1, 2, 2):
        arrival = _arrival(hot, path, number)
        digest = file_sha256(path)
        places.append(hot.move(arrival, outcome(image_sha256=digest)))
    first, second = hot.root / "done" / "part.png", places[2]
    assert second is not None
    assert places == [first, first, second, second]
    assert second.name == f"part-{file_sha256(second)[:12]}.png"
    assert file_sha256(first) != file_sha256(second)


def test_a_decided_file_leaves_review_under_the_name_of_its_part(hot: HotFolder) -> None:
    path, places = hot.root / "tray" / "part.png", []
    for number in (1, 2):
        arrival = _arrival(hot, path, number)
        doubt = outcome(
            result=Result.NOT_DECIDABLE,
            reason=Reason.LOW_CONFIDENCE,
            image_sha256=file_sha256(path),
        )
        places.append(hot.move(arrival, doubt))
    waiting = {one.path: one for one in hot.waiting()}
    assert waiting.keys() == set(places)
    assert [one.image_sha256 for one in waiting.values()] == [file_sha256(p) for p in waiting]
    assert all("hot/tray/part.png" in one.part_ids for one in waiting.values())
    # Another picture of that name was decided before.
    _arrival(hot, path, 3)
    taken = hot.root / "done" / "tray" / "part.png"
    taken.parent.mkdir(parents=True)
    path.replace(taken)
    before = file_sha256(taken)
    moved = [hot.move_decided(one) for one in waiting.values()]
    assert file_sha256(taken) == before
    digests = {path.name: file_sha256(path) for path in moved if path is not None}
    assert len(digests) == 2
    assert all(digest[:12] in name for name, digest in digests.items())
    assert hot.waiting() == []
    assert [hot.move_decided(one) for one in waiting.values()] == [None, None]


def test_a_name_that_is_taken_twice_is_no_reason_to_write_over_anything(hot: HotFolder) -> None:
    path = hot.root / "part.png"
    arrival = _arrival(hot, path)
    digest = file_sha256(path)
    lying = [hot.root / "done" / name for name in ("part.png", f"part-{digest[:12]}.png")]
    for number, one in enumerate(lying):
        one.write_bytes(b"%d" % number)
    moved = hot.move(arrival, outcome(image_sha256=digest))
    assert moved == hot.root / "done" / f"part-{digest}.png"
    assert [one.read_bytes() for one in lying] == [b"0", b"1"]


def test_what_was_written_over_meanwhile_is_neither_read_nor_moved(hot: HotFolder) -> None:
    path = hot.root / "part.png"
    arrival = _arrival(hot, path)
    content = path.read_bytes()
    assert hot.read(arrival) == content
    part("other", 2).save(path)
    assert hot.read(arrival) is None
    assert hot.move(arrival, outcome()) is None
    assert path.exists()
    path.unlink()
    assert hot.read(arrival) is None


def test_a_hostile_name_is_only_a_name(hot: HotFolder) -> None:
    path = hot.root / HOSTILE
    arrival = _arrival(hot, path)
    assert arrival.item.part_id == f"hot/{HOSTILE}"
    assert hot.move(arrival, outcome()) == hot.root / "done" / HOSTILE


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        HotFolder(tmp_path / "none", settle_s=1.0)
    (tmp_path / "hot").mkdir()
    (tmp_path / "hot" / "done").write_text("a file is in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        HotFolder(tmp_path / "hot", settle_s=1.0)


def test_a_folder_that_goes_is_waited_for(hot: HotFolder, tmp_path: Path) -> None:
    hot.root.rename(tmp_path / "away")
    found, faults = hot.arrivals(0.0)
    assert (found, faults) == ([], [f"{hot.root}: is not there; waiting for it"])


def _paths(hot: HotFolder, now: float, but: list[Arrival] | None = None) -> list[Path]:
    found, _ = hot.arrivals(now, busy={one.item.image for one in but or ()})
    return [one.item.image for one in found]


def _arrival(hot: HotFolder, path: Path, number: int = 1) -> Arrival:
    """A file that has come, and is whole."""
    path.parent.mkdir(exist_ok=True)
    picture: Image.Image = part("arrival", number)
    picture.save(path)
    hot.arrivals(0.0)
    (found,), _ = hot.arrivals(2.0)
    return found
