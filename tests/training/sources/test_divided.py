"""Test pictures given to training, as two CSVs that every command reads."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lad_agent.training.calibration import parts
from lad_agent.training.evaluation import read_truth
from lad_agent.training.held_out import pictures
from lad_agent.training.sources import Example, open_source
from lad_agent.training.sources.check import require
from lad_agent.training.sources.divided import divide
from tests.cli.conftest import Cli, cli
from tests.training.sources import layouts

__all__ = ["cli"]


def _loco(root: Path, test: int = 12) -> Path:
    """Two categories, with as many more test pictures of either label, one of two defects."""
    for first, category in ((0, "pushpins"), (1000, "screw_bag")):
        folder = layouts.loco(root, category, first)
        for number in range(test):
            layouts.picture(folder / f"test/good/{number + 100}.png", first + 100 + number)
            bad = layouts.picture(
                folder / f"test/logical_anomalies/{number + 100}.png", first + 200 + number
            )
            layouts.mask(
                folder / "ground_truth/logical_anomalies" / bad.stem / "000.png",
                layouts.DEFECTS["missing_nut"],
            )
    return root


def test_a_data_set_of_good_pictures_alone_is_divided(tmp_path: Path, cli: Cli) -> None:
    _loco(tmp_path / "loco")
    before = {e.sha256: e for e in open_source(tmp_path / "loco")}
    ran = cli("train", "data", "divide", "loco", "--out", "divided")
    assert ran.code == 0, ran.error
    assert ran.out.splitlines()[0] == "divided/train.csv"
    taught, kept = (open_source(tmp_path / "divided" / n) for n in ("train.csv", "test.csv"))
    after = list(require([taught, kept]).examples)
    assert {e.sha256 for e in after} == before.keys()
    assert len(after) == len(before)
    for e in after:
        was = before[e.sha256]
        assert (e.image.resolve(), e.product, e.kind, e.cause) == (
            was.image.resolve(),
            was.product,
            was.kind,
            was.cause,
        )
        assert (e.mask and e.mask.resolve()) == (was.mask and was.mask.resolve())
        assert e.split == was.split or (was.split, e.split) == ("test", "train")
    assert {e.split for e in kept} == {"test"}
    for product in ("pushpins", "screw_bag"):
        mine = [e for e in taught if e.product == product]
        assert {e.anomalous for e in mine if e.split == "train"} == {True, False}
    assert len(pictures(tmp_path / "divided" / "test.csv")) == len(list(kept))
    able, apart = parts.labelled(tmp_path / "divided" / "test.csv", "screw_bag")
    assert ({e.product for e in able}, apart) == ({"screw_bag"}, 0)
    assert able
    truth = read_truth(tmp_path / "divided" / "test.csv")
    assert {sha: (t.product, t.anomalous) for sha, t in truth.items()} == {
        e.sha256: (e.product, e.anomalous) for e in kept
    }
    assert cli("train", "data", "check", "divided/train.csv", "divided/test.csv").code == 0


def test_nothing_is_written_over_and_shares_are_checked(tmp_path: Path, cli: Cli) -> None:
    _loco(tmp_path / "loco", test=4)
    (tmp_path / "divided").mkdir()
    (tmp_path / "divided" / "test.csv").write_text("mine")
    ran = cli("train", "data", "divide", "loco", "--out", "divided")
    assert (ran.code, ran.error) == (
        2,
        "lad-agent: divided/test.csv is there already; name another folder",
    )
    assert not (tmp_path / "divided" / "train.csv").exists()
    for share in ("0", "1", "nan"):
        ran = cli("train", "data", "divide", "loco", "--out", "other", "--share", share)
        assert (ran.code, ran.error) == (
            2,
            f"lad-agent: --share {share}: give a number between 0 and 1",
        )


@given(st.sets(st.integers(0, 2**64 - 1), max_size=50), st.floats(0.05, 0.95))
def test_every_picture_is_on_one_side_by_its_content(numbers: set[int], share: float) -> None:
    examples = [
        Example(Path(f"{n}.png"), f"{n:016x}{'0' * 48}", "tray", "test", "good") for n in numbers
    ]
    taught, kept = divide(examples, share)
    assert sorted(e.sha256 for e in (*taught, *kept)) == sorted(e.sha256 for e in examples)
    assert [divide([e], share)[1] == [e] for e in examples] == [e in kept for e in examples]
    more, _ = divide(examples, (1 + share) / 2)
    assert {e.sha256 for e in taught} <= {e.sha256 for e in more}


def test_a_split_of_visa_with_both_verdicts(tmp_path: Path) -> None:
    folder = layouts.visa(tmp_path)
    one = (folder / "split_csv" / "1cls.csv").read_text()
    highshot = folder / "split_csv" / "2cls_highshot.csv"
    highshot.write_text(one.replace("test,anomaly", "train,anomaly"))
    source = open_source(highshot)
    assert (source.layout, source.path) == ("VisA", folder)
    assert [(e.split, e.kind) for e in source] == [
        ("train", "good"),
        ("test", "good"),
        ("train", "bad"),
    ]
