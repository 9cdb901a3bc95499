"""Every layout gives the same kind of example; what is broken in it is named, never skipped."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_agent.errors import UnreadableInput, UsageError
from lad_agent.training import synloco
from lad_agent.training.evaluation.truth import rules_of_classes
from lad_agent.training.sources import (
    Example,
    Fault,
    Finding,
    Shares,
    from_reviews,
    open_source,
    split_of,
)
from lad_agent.training.synloco import dataset
from tests.training.sources import layouts

SIZE, SEED = 56, 3
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of SynLOCO."""
    root = tmp_path_factory.mktemp("synloco")
    return dataset.write(root, "screw_bag", 4, SEED, size=SIZE, train=1, validation=1)


def _faults(path: Path) -> list[str]:
    return [found.message for found in open_source(path).read() if isinstance(found, Fault)]


def _told(examples: list[Example]) -> list[tuple[object, ...]]:
    return [(e.split, e.kind, e.cause) for e in examples]


def test_loco_names_the_cause_by_the_grey_of_its_masks(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path)
    source = open_source(folder)
    examples = list(source)
    assert source.layout == "MVTec LOCO AD"
    assert _told(examples) == [
        ("train", "good", None),
        ("train", "good", None),
        ("validation", "good", None),
        ("test", "good", None),
        ("test", "logical", "missing_nut"),
        ("test", "logical", "extra_nut, missing_nut"),
        ("test", "structural", "scratch"),
    ]
    assert examples[5].mask == folder / "ground_truth" / "logical_anomalies" / "001"
    assert [e.anomalous for e in examples] == [False] * 4 + [True] * 3
    assert {e.product for e in examples} == {"screw_bag"}
    for e in examples:
        assert e.sha256 == hashlib.sha256(e.image.read_bytes()).hexdigest()


def test_loco_names_the_rule_that_a_defect_breaks(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path)
    entries: list[dict[str, object]] = [
        {"defect_name": "missing_nut", "pixel_value": 255, "rule": "R2"},
        {"defect_name": "rule_R2", "pixel_value": 254},
        {"defect_name": "scratch", "pixel_value": 253},
    ]

    def told() -> list[str | None]:
        (folder / "defects_config.json").write_text(json.dumps(entries))
        return [e.rule for e in open_source(folder)]

    assert told() == [None] * 4 + ["R2", "R2", None]
    assert rules_of_classes(folder) == {255: "R2", 254: "R2"}
    entries[1]["defect_name"] = "rule_R4"
    assert told() == [None] * 4 + ["R2", None, None], "of a picture that breaks two none is named"
    entries[1]["defect_name"] = "extra_nut"
    assert told() == [None] * 4 + ["R2", None, None], "nor where a class has none"


def test_loco_of_several_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.loco(tmp_path)
    layouts.loco(tmp_path, "own_category", first=100)
    assert {e.product for e in open_source(tmp_path)} == {"screw_bag", "own_category"}
    monkeypatch.chdir(tmp_path / "own_category")
    assert {e.product for e in open_source(Path())} == {"own_category"}


def test_what_an_unpacked_category_lacks_is_named(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path)
    (folder / "validation" / "good" / "000.png").unlink()
    (folder / "validation" / "good").rmdir()
    gone = folder / "ground_truth" / "structural_anomalies" / "000" / "000.png"
    gone.unlink()
    layouts.mask(folder / "ground_truth/logical_anomalies/000/000.png", 7)
    (folder / "train" / "good" / "001.png").write_bytes(b"")
    lacking, empty, value, mask = _faults(folder)
    assert lacking.startswith(f"{folder}: lacks validation/good; unpack the archive again")
    assert empty == f"{folder}/train/good/001.png: the file is empty; download it again"
    assert "grey value 7 is not in defects_config.json" in value
    assert f"no mask in {gone.parent}" in mask
    (folder / "defects_config.json").write_text('[{"defect_name": "x"}]')
    assert any("defects_config.json: 0.pixel_value: Field required" in f for f in _faults(folder))
    (folder / "defects_config.json").write_text("")
    assert any("defects_config.json: Invalid JSON" in f for f in _faults(folder))


def test_masks_that_are_all_missing_are_told_once(tmp_path: Path) -> None:
    folder = layouts.loco(tmp_path)
    shutil.rmtree(folder / "ground_truth" / "logical_anomalies")
    (lacking,) = _faults(folder)
    assert lacking == (
        f"{folder}: lacks ground_truth/logical_anomalies; unpack the archive again "
        "(pictures of your own go into good and bad/<cause>)"
    )


def test_synloco_brings_facts_rule_and_cause(synthetic: Path) -> None:
    source = open_source(synthetic)
    examples = list(source)
    assert source.layout == "SynLOCO"
    assert [e.split for e in examples] == ["train", "validation", *["test"] * 4]
    lines = [json.loads(line) for line in (synthetic / "truth.jsonl").read_text().splitlines()]
    names: dict[str, synloco.Kind] = {"good": "normal"}
    for e, line in zip(examples, lines, strict=True):
        kind = names.get(line["kind"], line["kind"])
        seed = dataset.APART + SEED
        drawn = synloco.sample("screw_bag", seed, line["index"], "train", SIZE, kind)
        assert e.facts == synloco.facts_of(drawn)
        assert (e.rule, e.cause) == (drawn.plan.rule, drawn.plan.cause)
        assert (e.kind, e.anomalous) == (line["kind"], line["anomalous"])
        assert (e.mask is None) == (line["mask"] is None)
    assert {e.kind for e in examples} == {"good", "logical", "structural"}


def test_synloco_and_its_truth_must_agree(tmp_path: Path) -> None:
    folder = tmp_path / "screw_bag"
    line = {
        "image": "test/good/000.png", "product": "screw_bag", "kind": "good", "rule": None,
        "cause": None, "mask": None, "objects": [], "attributes": {},
    }  # fmt: skip
    stray = layouts.picture(folder / "train" / "good" / "000.png", 1)
    truths = [line, line | {"image": "elsewhere/000.png"}, line | {"kind": "odd"}]
    text = "".join(json.dumps(truth) + "\n" for truth in truths)
    (folder / "truth.jsonl").write_text(text + "cut o")
    missing, elsewhere, odd, cut, unlisted = _faults(folder)
    assert missing.startswith(f"{folder}/test/good/000.png: no such file")
    assert "elsewhere/000.png: in none of the folders train, validation, test" in elsewhere
    assert "truth.jsonl, line 3: kind" in odd
    assert "truth.jsonl, line 4: Invalid JSON" in cut
    assert unlisted.startswith(f"{stray}: not in {folder}/truth.jsonl")


def test_mvtec_ad_names_the_cause_by_its_folder(tmp_path: Path) -> None:
    folder = layouts.mvtec_ad(tmp_path)
    source = open_source(tmp_path)
    assert source.layout == "MVTec AD"
    examples = list(source)
    assert sorted(_told(examples), key=str) == [
        ("test", "bad", "crack"),
        ("test", "good", None),
        ("train", "good", None),
        ("train", "good", None),
    ]
    mask = folder / "ground_truth" / "crack" / "000_mask.png"
    assert [e.mask for e in examples if e.anomalous] == [mask]
    mask.unlink()
    (folder / "test" / "good" / "000.png").unlink()
    (folder / "test" / "good").rmdir()
    lacking, gone = _faults(folder)
    assert lacking == f"{folder}: lacks test/good; unpack the archive again"
    assert gone.startswith(f"{mask}: the mask of {folder}/test/crack/000.png is not there")


def test_visa_follows_its_split_file(tmp_path: Path) -> None:
    folder = layouts.visa(tmp_path)
    source = open_source(folder)
    assert source.layout == "VisA"
    assert [(e.product, e.split, e.kind) for e in source] == [
        ("candle", "train", "good"),
        ("candle", "test", "good"),
        ("candle", "test", "bad"),
    ]
    with (folder / "split_csv" / "1cls.csv").open("a") as file:
        file.write("candle,test,anomaly,x.JPG,\ncandle,val,normal,x.JPG,\ncandle,test,odd,x.JPG,\n")
        file.write("candle,test,normal,x.JPG,\n")
    unmasked, split, label, gone = _faults(folder)
    assert "1cls.csv, line 5: an anomaly without a mask" in unmasked
    assert "1cls.csv, line 6: split 'val'; known: train, test" in split
    assert "1cls.csv, line 7: label 'odd'; known: normal, anomaly" in label
    assert gone.startswith(f"{folder}/x.JPG: no such file")


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = layouts.own(tmp_path)
    layouts.picture(folder / "bad" / "plain.png", 2000)
    layouts.picture(folder / "good" / ".hidden.png", 3000)
    examples = list(open_source(folder))
    causes = sorted(str(e.cause) for e in examples if e.anomalous)
    assert causes == ["None", "no nut", "no nut", "scratched", "scratched"]
    assert [e.kind for e in examples] == ["good"] * 6 + ["bad"] * 5
    assert {e.product for e in examples} == {"tray"}
    for e in examples:
        assert e.split == split_of(e.sha256, Shares())
    moved = layouts.own(tmp_path / "another_machine")
    assert {e.sha256: e.split for e in open_source(moved)}.items() <= {
        e.sha256: e.split for e in examples
    }.items()


def test_a_csv_of_ones_own(tmp_path: Path) -> None:
    for number in range(3):
        layouts.picture(tmp_path / "pictures" / f"{number}.png", number)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "image;label;cause;rule;split\npictures/0.png;good;;;train\n"
        "pictures/1.png;logical;no nut;R2;test\npictures/2.png;bad\n"
    )
    examples = list(open_source(labels))
    assert [(e.kind, e.cause, e.rule) for e in examples] == [
        ("good", None, None),
        ("logical", "no nut", "R2"),
        ("bad", None, None),
    ]
    assert [e.split for e in examples[:2]] == ["train", "test"]
    assert list(open_source(tmp_path)) == examples
    labels.write_text(
        "image,label,split,rule\n,good,,\na.png,fine,,\na.png,good,tset,\na.png,good,,R1\n"
    )
    unnamed, label, split, rule = _faults(labels)
    assert "line 2: names no image" in unnamed
    assert "line 3: label 'fine'; known: good, logical, structural, bad" in label
    assert "line 4: split 'tset'; known: train, validation, test" in split
    assert "line 5: a good picture has neither cause, rule nor mask" in rule
    (tmp_path / "empty").mkdir()
    labels.write_text(
        "image,label,mask\npictures/0.png,bad,m.png\npictures/1.png,bad,gone.png\n"
        "pictures/1.png,bad,empty\npictures/2.png,good,m.png\n"
    )
    layouts.mask(tmp_path / "m.png")
    found = list(open_source(labels).read())
    assert isinstance(found[0], Example)
    assert found[0].mask == tmp_path / "m.png"
    messages = [one.message for one in found if isinstance(one, Fault)]
    assert "line 3: no mask " in messages[0]
    assert "line 4: no mask " in messages[1]
    assert "line 5: a good picture has neither" in messages[2]


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("image,lable", "unknown column 'lable'; did you mean 'label'?"),
        ("image", "lacks the column label"),
        ("", "lacks the column image, label"),
        ("image,label\na,good,more", "line 2: wants image,label"),
    ],
)
def test_a_csv_not_of_its_form(tmp_path: Path, head: str, told: str) -> None:
    labels = tmp_path / "parts.csv"
    labels.write_text(head)
    with pytest.raises(UsageError, match=r"parts\.csv, line ") as refused:
        list(open_source(labels))
    assert told in str(refused.value)


def test_findings_keep_who_found_them(tmp_path: Path) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    good = layouts.picture(tmp_path / "a.png", 1)
    bad = layouts.picture(tmp_path / "b.png", 2)
    gone = tmp_path / "gone.png"
    source = from_reviews(
        iter(
            (
                Finding(good, "tray", True, None, "ana", at),
                Finding(bad, "tray", False, "R1", "bo", at),
                Finding(gone, "tray", True, None, "ana", at),
                Finding(bad, "tray", False, "R1", "bo", at, sha256="0" * 64),
            )
        )
    )
    kept = [found for found in source.read() if isinstance(found, Example)]
    assert [(e.kind, e.rule, e.by, e.at) for e in kept] == [
        ("good", None, "ana", at),
        ("bad", "R1", "bo", at),
    ]
    lost, changed = [found.message for found in source.read() if isinstance(found, Fault)]
    assert lost.startswith(f"{gone}: no such file")
    assert changed.startswith(f"{bad}: has changed since bo reviewed it")
    with pytest.raises(UnreadableInput, match=r"gone\.png"):
        list(source)


def test_an_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "stuff").mkdir()
    with pytest.raises(UsageError) as refused:
        open_source(tmp_path)
    for layout in ("LOCO", "SynLOCO", "MVTec AD", "split_csv/1cls.csv", "labels.csv", "good"):
        assert layout in str(refused.value)


@given(sha256=HASHES, validation=st.floats(0, 0.5), test=st.floats(0, 0.49))
def test_a_split_depends_on_content_and_shares_alone(
    sha256: str, validation: float, test: float
) -> None:
    shares = Shares(validation, test)
    split = split_of(sha256, shares)
    assert split == split_of(sha256, Shares(validation, test))
    place = int(sha256, 16) / 16**64
    wanted = "test" if place < test else "validation" if place < test + validation else "train"
    near = min(abs(place - test), abs(place - test - validation))
    assert split == wanted or near < 1e-15


def test_shares_are_kept() -> None:
    digests = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(4000)]
    splits = [split_of(digest, Shares(validation=0.2, test=0.3)) for digest in digests]
    assert splits.count("validation") / 4000 == pytest.approx(0.2, abs=0.03)
    assert splits.count("test") / 4000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_leave_something_to_train_on(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="together below 1"):
        Shares(validation, test)
