"""What stops a training is found before it, all of it, and named."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lad_agent.errors import CheckFailed
from lad_agent.training.sources import Finding, from_reviews, open_source
from lad_agent.training.sources.check import examine, require
from lad_agent.training.sources.loco import ARCHIVE
from tests.cli.conftest import Cli, cli
from tests.training.sources import layouts

__all__ = ["cli"]


def _faults(*paths: Path) -> tuple[str, ...]:
    return examine([open_source(path) for path in paths]).faults


def test_whole_data_pass(tmp_path: Path) -> None:
    seen: list[int] = []
    paths = (layouts.mvtec_ad(tmp_path), layouts.visa(tmp_path))
    report = require([open_source(path) for path in paths], seen.append)
    assert (report.faults, report.warnings) == ((), ())
    assert report.counts == {
        ("bottle", "train", "good"): 2,
        ("bottle", "test", "good"): 1,
        ("bottle", "test", "bad"): 1,
        ("candle", "train", "good"): 1,
        ("candle", "test", "good"): 1,
        ("candle", "test", "bad"): 1,
    }
    assert seen == list(range(1, 8))
    assert len(report.examples) == 7


def test_every_unreadable_picture_is_named_in_one_error(tmp_path: Path) -> None:
    folder = layouts.own(tmp_path)
    whole = (folder / "good" / "0.png").read_bytes()
    (folder / "good" / "0.png").write_bytes(b"")
    (folder / "good" / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "bad" / "scratched" / "0.png").write_text("<html>not found</html>")
    with pytest.raises(CheckFailed) as refused:
        require([open_source(folder)])
    for name in ("good/0.png", "good/1.png", "bad/scratched/0.png"):
        assert f"{folder}/{name}: " in str(refused.value)
    assert str(refused.value).count(" | ") == 2
    assert len(examine([open_source(folder)]).examples) == 7


def test_what_is_no_picture_among_own_pictures_is_named(tmp_path: Path) -> None:
    folder = layouts.own(tmp_path)
    for name in ("good/phone.heic", "bad/scratched/notes.txt", "good/Thumbs.db", "good/.hidden"):
        (folder / name).write_bytes(b"x")
    faults = _faults(folder)
    assert [fault.partition(": ")[0] for fault in faults] == [
        f"{folder}/good/phone.heic", f"{folder}/bad/scratched/notes.txt",
    ]  # fmt: skip
    assert all("save it as PNG, or take it out" in fault for fault in faults)


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    folder = layouts.mvtec_ad(tmp_path)
    mask = folder / "ground_truth" / "crack" / "000_mask.png"
    mask.write_bytes(mask.read_bytes()[:40])
    (fault,) = _faults(folder)
    assert fault.startswith(f"{mask}: ")


def test_splits_share_no_picture(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path)
    train, test = folder / "train/good/000.png", folder / "test/good/000.png"
    shutil.copy(train, test)
    assert _faults(folder) == (f"{train} (train) and {test} (test): the same picture; remove one",)
    layouts.picture(test, 500)
    other = layouts.loco(tmp_path, "pushpins", first=100)
    assert _faults(folder, other) == ()
    shutil.copy(train, other / "test/logical_anomalies/000.png")
    assert len(_faults(folder, other)) == 1, "sources that are trained on together share none"
    assert _faults(other) == ()


def test_labels_do_not_contradict(tmp_path: Path) -> None:
    folder = layouts.own(tmp_path)
    good, bad = folder / "good" / "0.png", folder / "bad" / "scratched" / "0.png"
    shutil.copy(good, bad)
    (fault,) = _faults(folder)
    assert fault.startswith(f"{good} (good) and {bad} (bad): the same picture under labels")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    said = [Finding(good, "x", by == "ana", None, by, at) for by in ("ana", "bo")]
    assert "(good, by ana) and" in examine([from_reviews(said)]).faults[0]
    shutil.copy(good, folder / "good" / "again.png")
    bad.unlink()
    assert _faults(folder) == (), "a picture that is there twice contradicts nothing"


def test_one_class_teaches_nothing(tmp_path: Path) -> None:
    folder = layouts.own(tmp_path, good=3, bad=0)
    assert _faults(folder) == ("all 3 pictures are good; add anomalous ones",)
    shutil.rmtree(folder / "good")
    layouts.picture(folder / "bad" / "0.png", 5)
    assert _faults(folder) == ("all 1 pictures are anomalous; add good ones",)
    (folder / "bad" / "0.png").unlink()
    assert _faults(folder) == ("no picture that can be used; add some",)


def test_a_product_of_one_class_is_a_warning(tmp_path: Path) -> None:
    goods = layouts.own(tmp_path, good=3, bad=0)
    report = examine([open_source(goods), open_source(layouts.visa(tmp_path))])
    assert (report.faults, report.warnings) == ((), ("tray: no anomalous pictures",))


def test_a_test_split_of_one_class_is_a_warning(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path)
    shutil.rmtree(folder / "test" / "good")
    assert examine([open_source(folder)]).warnings == (
        "screw_bag: no good pictures in test to judge it by",
    )


def test_sizes_far_apart_are_a_warning(tmp_path: Path) -> None:
    folder = layouts.own(tmp_path)
    layouts.picture(folder / "good" / "wide.png", 77, size=(40, 8))
    report = examine([open_source(folder)])
    assert report.faults == ()
    assert report.warnings[-1:] == ("tray: very different sizes and shapes: 8x8 (10), 40x8 (1)",)
    layouts.picture(folder / "good" / "wide.png", 78, size=(10, 6))
    report = examine([open_source(tmp_path / "tray")])
    assert report.warnings[-1:] == ("tray: very different shapes: 8x8 (10), 10x6 (1)",)


def test_what_a_download_left_unfinished_is_named(tmp_path: Path) -> None:
    layouts.loco(tmp_path)
    names = ("screw_bag/train/good/002.png.part", "loco.tar.xz.crdownload")
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "pushpins.unfinished" / "train" / "good").mkdir(parents=True)
    faults = _faults(tmp_path)
    for name in (*names, "pushpins.unfinished"):
        assert f"{tmp_path}/{name}: not whole; finish the download or remove it" in faults


def _left_out(folder: Path, layout: str) -> str:
    return (
        f"{folder}: holds pictures that are not read as {layout}; unpack it again, give it as a "
        f"path of its own, or take it out of {folder.parent}"
    )


def test_a_category_that_was_not_wholly_unpacked_is_named(tmp_path: Path) -> None:
    layouts.mvtec_ad(tmp_path)
    layouts.picture(tmp_path / "zipper" / "test" / "good" / "000.png", 50)
    (tmp_path / "license.txt").write_text("CC BY-NC-SA 4.0")
    layouts.picture(tmp_path / ".cache" / "thumb.png", 51)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "readme.txt").write_text("cite us")
    assert _faults(tmp_path) == (_left_out(tmp_path / "zipper", "MVTec AD"),)


def test_own_pictures_beside_a_data_set_are_named(tmp_path: Path) -> None:
    screws, tray = layouts.loco(tmp_path), layouts.own(tmp_path)
    for number in range(10):  # of other content than the screws
        place = "good" if number < 6 else "bad/worn"
        layouts.picture(tray / place / f"own{number}.png", 3000 + number)
    shutil.rmtree(tray / "bad" / "scratched")
    for number in range(6):
        (tray / "good" / f"{number}.png").unlink()
    assert _faults(tmp_path) == (_left_out(tray, "MVTec LOCO AD"),)
    assert _faults(screws) == ()
    assert _faults(tmp_path, tray) == (), "it is read after all"
    layouts.picture(screws / "more" / "000.png", 900)
    assert _faults(screws) == (_left_out(screws / "more", "MVTec LOCO AD"),)


def test_what_a_layout_does_not_read_beside_visa_and_own_pictures(tmp_path: Path) -> None:
    visa, tray = layouts.visa(tmp_path), layouts.own(tmp_path)
    assert _faults(visa) == _faults(tray) == ()
    layouts.picture(visa / "capsules" / "Data" / "Images" / "Normal" / "1.JPG", 70)
    layouts.picture(tray / "worn" / "1.png", 71)
    assert _faults(visa) == (_left_out(visa / "capsules", "VisA"),)
    assert _faults(visa / "split_csv" / "1cls.csv") == (), "a list tells what is read"
    assert _faults(tray) == (_left_out(tray / "worn", "own pictures"),)


def test_what_is_no_data_is_not_missed(tmp_path: Path) -> None:
    tray = layouts.own(tmp_path)
    for name in ("runs/sft/curves.png", "audit.db.images/ab/abcd.png", "references/1.png"):
        layouts.picture(tray / name, 80)
    (tray / "runs" / "sft" / "run.json").write_text("{}")
    rules = (
        "product: tray\nreferences: [references/1.png]\nrules: [{id: R1, text: exactly 2 nuts}]\n"
    )
    (tray / "recipe.yaml").write_text(rules)
    assert _faults(tray) == ()
    layouts.picture(tray / "photos" / "1.png", 81)
    assert len(_faults(tray)) == 1
    layouts.picture(tray / "parts" / "nuts" / "1.png", 82)
    assert _faults(tray) == (), "a kit holds more than labelled pictures"
    shutil.rmtree(tray / "parts")
    assert examine([open_source(tray)], apart=[tray / "photos"]).faults == ()
    shutil.rmtree(tray / "photos")
    (tmp_path / "linked").symlink_to(tray)
    assert _faults(tmp_path / "linked") == ()


def test_counts_are_compared_with_the_archive(tmp_path: Path, cli: Cli) -> None:
    layouts.loco(tmp_path / "whole", "own_category")
    ran = cli("train", "data", "check", "whole")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "whole: MVTec LOCO AD",
        "product       split       good  logical  structural  bad",
        "own_category  train          2        0           0    0",
        "own_category  validation     1        0           0    0",
        "own_category  test           1        2           1    0",
    ]
    layouts.loco(tmp_path / "archive")
    ran = cli("train", "data", "check", "archive/screw_bag", "--json")
    assert (ran.code, ran.error) == (5, "lad-agent: 1 fault in the data; mend those above")
    assert ran.json["faults"] == []
    different = ran.json["archive"]["differences"]["screw_bag"]
    assert different["train/good"] == {"found": 2, "archive": 360}
    assert different["test/logical_anomalies"] == {"found": 2, "archive": 137}
    ran = cli("train", "data", "check", "archive")
    assert ran.code == 5
    assert "fault: screw_bag: train/good has 2 pictures, the archive 360; " in ran.out
    assert "fault: juice_bottle: train/good has 0 pictures, the archive 335; " in ran.out


def test_an_unpacked_category_that_is_whole(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.loco(tmp_path)
    monkeypatch.setitem(ARCHIVE, "screw_bag", (2, 1, 1, 2, 1))
    ran = cli("train", "data", "check", "screw_bag")
    assert ran.code == 0
    assert "as many as in the archive: screw_bag" in ran.out


def test_the_command_names_faults_and_warnings(tmp_path: Path, cli: Cli) -> None:
    folder = layouts.own(tmp_path)
    (folder / "good" / "0.png").write_bytes(b"")
    layouts.picture(folder / "good" / "wide.png", 77, size=(80, 80))
    ran = cli("train", "data", "check", "tray")
    assert ran.code == 5
    assert "warning: tray: very different sizes" in ran.out
    assert f"fault: {folder}/good/0.png: the file is empty; download it again" in ran.out
    ran = cli("train", "data", "check", "tray", "--json")
    assert (ran.code, len(ran.json["faults"])) == (5, 1)
    assert ran.json["layouts"] == {"tray": "own pictures"}
    assert sum(n for of in ran.json["counts"]["tray"].values() for n in of.values()) == 10
    for wrong in (("nowhere",), ()):
        assert cli("train", "data", "check", *wrong).code == 2


def test_a_recipe_that_would_stop_training_is_told(tmp_path: Path, cli: Cli) -> None:
    folder = layouts.own(tmp_path)
    assert cli("train", "data", "check", "tray").code == 0
    (folder / "recipe.yaml").write_text("product: tray\nrules: []\n")
    ran = cli("train", "data", "check", "tray")
    assert ran.code == 2
    assert f"{folder}/recipe.yaml" in ran.error


def test_archive_numbers_are_the_published_ones() -> None:
    """Of the published table: train, validation, test good, structural, logical."""
    published = {
        "breakfast_box": (351, 62, 102, 90, 83),
        "juice_bottle": (335, 54, 94, 94, 142),
        "pushpins": (372, 69, 138, 81, 91),
        "screw_bag": (360, 60, 122, 82, 137),
        "splicing_connectors": (360, 60, 119, 85, 108),
    }
    assert {n: (*own[:3], own[4], own[3]) for n, own in ARCHIVE.items()} == published
    assert [sum(parts) for parts in zip(*ARCHIVE.values(), strict=True)] == [
        1778, 305, 575, 561, 432,
    ]  # fmt: skip
