"""Results joined with the truth: rates by hand, what counts once, bad files by name."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_agent import recipe
from lad_agent.errors import UsageError
from lad_agent.training import evaluation
from lad_agent.training.evaluation import read_truth
from lad_agent.training.sources.example import DEFAULT_SHARES, split_of
from tests.training.batch import Batch, write_lines
from tests.training.sources import layouts


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    (tmp_path / "truth").mkdir()
    return Batch(tmp_path)


@pytest.fixture
def judged(batch: Batch) -> Batch:
    """Five good parts (one rejected, one undecided), four bad (one passed, one malformed)."""
    for name, result, anomalous in (
        ("g0", "OK", False), ("g1", "OK", False), ("g2", "OK", False),
        ("g3", "NotOK", True), ("g4", "NotDecidable", False),
    ):  # fmt: skip
        batch.result(batch.picture(name), result, anomalous)
    batch.result(batch.picture("b0", "logical", rule="R1"), "NotOK", True, rule="R1")
    batch.result(batch.picture("b1", "logical", rule="R1"), "NotOK", True, rule="R2")
    batch.result(batch.picture("b2", "logical", rule="R2"), "OK", False)
    batch.result(batch.picture("b3", "structural", rule="R5"), "NotDecidable", None)
    return batch


def test_rates_of_a_hand_made_batch(judged: Batch) -> None:
    overall = judged.evaluate()["overall"]
    assert (overall["n"], overall["good"], overall["anomalous"]) == (9, 5, 4)
    assert overall["balanced_accuracy"] == pytest.approx((2 / 4 + 4 / 5) / 2)
    assert overall["accuracy"] == pytest.approx(6 / 9)
    assert overall["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert overall["escape_rate"] == pytest.approx(1 / 4)
    assert overall["escape_rate_decided"] == pytest.approx(1 / 3)
    assert overall["overkill_rate"] == pytest.approx(1 / 5)
    assert overall["outgoing_defect_rate"] == pytest.approx(1 / 4)
    assert overall["coverage"] == pytest.approx(7 / 9)
    assert overall["well_formed"] == pytest.approx(8 / 9)
    assert overall["cause_named"] == pytest.approx(1 / 2)
    # scores: good .1 .1 .1 .9 .1, bad .9 .9 .1, and .5 where the answer is malformed
    assert overall["auroc"] == pytest.approx((4.5 + 4.5 + 2 + 4) / 20)


def test_kinds_of_faults_are_reported_apart_with_the_same_good_parts(judged: Batch) -> None:
    overall = judged.evaluate()["overall"]
    assert overall["logical"]["balanced_accuracy"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert overall["structural"]["balanced_accuracy"] == pytest.approx((0 + 4 / 5) / 2)
    assert overall["logical"]["good"] == overall["structural"]["good"] == 5


def test_baselines_answer_always_the_same(judged: Batch) -> None:
    baselines = judged.evaluate()["overall"]["baselines"]
    yes, no = baselines["always_yes"], baselines["always_no"]
    assert yes["balanced_accuracy"] == yes["auroc"] == no["balanced_accuracy"] == no["auroc"] == 0.5
    assert (yes["accuracy"], no["accuracy"]) == (pytest.approx(4 / 9), pytest.approx(5 / 9))
    assert (yes["escape_rate"], yes["overkill_rate"], yes["f1"]) == (0, 1, pytest.approx(8 / 13))
    assert (no["escape_rate"], no["overkill_rate"], no["f1"]) == (1, 0, 0)


def test_malformed_answers_are_wrong_whatever_the_part_is(batch: Batch) -> None:
    batch.result(batch.picture("good"), "NotDecidable", None)
    batch.result(batch.picture("bad", "logical"), "NotDecidable", None)
    overall = batch.evaluate()["overall"]
    assert (overall["accuracy"], overall["balanced_accuracy"], overall["f1"]) == (0, 0, 0)
    assert (overall["escape_rate"], overall["overkill_rate"], overall["coverage"]) == (0, 0, 0)
    assert overall["auroc"] == 0.5
    assert overall["escape_rate_decided"] is None
    assert overall["outgoing_defect_rate"] is None


def test_absent_classes_have_no_rates(batch: Batch) -> None:
    batch.result(batch.picture("good"), "OK", False)
    overall = batch.evaluate()["overall"]
    assert overall["balanced_accuracy"] is None
    assert (overall["escape_rate"], overall["f1"], overall["auroc"]) == (None, None, None)
    assert "logical" not in overall
    assert overall["baselines"]["always_yes"]["balanced_accuracy"] is None


def test_the_evidence_check_is_told_by_what_it_catches_and_costs(judged: Batch) -> None:
    caught = judged.picture("b4", "logical", rule="R1")
    judged.result(caught, "NotDecidable", False, evidence="contradicted")
    alarmed = judged.picture("g5")
    judged.result(alarmed, "NotDecidable", False, evidence="contradicted")
    check = judged.evaluate()["overall"]["evidence_check"]
    assert check["contradicted"] == 2
    assert check["catch_rate"] == pytest.approx(1 / 4)
    assert check["cost"] == pytest.approx(1 / 7)


def test_products_and_strata_have_their_own_figures(batch: Batch) -> None:
    batch.result(batch.picture("a"), "OK", False)
    batch.result(batch.picture("b", "logical", stratum="blur+noise"), "NotOK", True)
    batch.result(batch.picture("c", "logical", product="pushpins"), "OK", False)
    figures = batch.evaluate()
    assert {p: m["n"] for p, m in figures["products"].items()} == {"pushpins": 1, "screw_bag": 2}
    assert {s: m["n"] for s, m in figures["strata"].items()} == {
        "pushpins/in-range": 1, "screw_bag/blur+noise": 1, "screw_bag/in-range": 1
    }  # fmt: skip
    assert figures["products"]["pushpins"]["escape_rate"] == 1.0


def test_results_are_joined_by_hash_alone(batch: Batch) -> None:
    batch.result(batch.picture("a"), "OK", False, image="/elsewhere/renamed.png", product="other")
    batch.result("0" * 64, "OK", False)
    batch.result("", "NotDecidable", None, image_sha256=None)
    figures = batch.evaluate()
    assert figures["overall"]["n"] == 1
    assert figures["without_truth"] == 2


def test_a_rationale_may_hold_any_character(batch: Batch) -> None:
    batch.result(batch.picture("a"), "OK", False, rationale="one\u2028two\x85three\nfour")
    batch.evaluate()
    lines = batch.results.read_text(encoding="utf-8")
    batch.results.write_text(lines.replace("\\u2028", "\u2028").replace("\\u0085", "\x85"))
    assert evaluation.evaluate(batch.results, batch.truth)["overall"]["n"] == 1


def test_rule_difference_is_the_farthest_count(batch: Batch) -> None:
    folder = batch.truth / "screw_bag"
    folder.mkdir()
    source = recipe.shipped("screw_bag").parent
    for name in ("recipe.yaml", "reference.png"):
        (folder / name).write_bytes((source / name).read_bytes())
    right = {"washers": 2, "nuts": 2, "long screws": 1, "short screws": 1}
    batch.result(batch.picture("g", objects=right), "OK", False)
    for name, counts, result in (
        ("one", {"nuts": 3}, "NotOK"),
        ("two", {"long screws": 3}, "OK"),
        ("both", {"nuts": 1, "short screws": 3}, "NotOK"),
        ("many", {"washers": 7}, "NotOK"),
    ):
        sha256 = batch.picture(name, "logical", objects=right | counts)
        batch.result(sha256, result, result == "NotOK")
    batch.result(batch.picture("hurt", "structural", objects=right), "NotOK", True)
    figures = batch.evaluate()["rule_difference"]
    assert {name: group["n"] for name, group in figures.items()} == {
        "1": 1, "2": 2, "4": 1, "good": 1
    }  # fmt: skip
    assert figures["2"] == {"n": 2, "right": 0.5, "passed": 0.5}
    assert figures["good"]["right"] == 1.0


def test_the_table_has_a_row_a_product(judged: Batch) -> None:
    judged.result(judged.picture("p", product="pushpins"), "OK", False)
    rows = evaluation.table(judged.evaluate()).splitlines()
    assert len({row.count("|") for row in rows}) == 1
    assert [row.split("|")[1].strip() for row in rows] == [
        "product", "---", "all", "pushpins", "screw_bag", "always yes", "always no"
    ]  # fmt: skip
    assert "-" in rows[3].split("|")[3]


def test_logical_and_structural_faults_have_an_auroc_each(judged: Batch) -> None:
    heading, _, row, *_ = evaluation.table(judged.evaluate()).splitlines()
    told = dict(zip(heading.split("|"), row.split("|"), strict=True))
    # scores: good .1 .1 .1 .9 .1, logical .9 .9 .1, structural .5
    assert float(told[" AUROC logical "]) == pytest.approx((4.5 + 4.5 + 2) / 15, abs=5e-4)
    assert float(told[" AUROC structural "]) == pytest.approx(4 / 5, abs=5e-4)


def test_pictures_for_training_are_counted_and_told(judged: Batch) -> None:
    assert "split train" not in evaluation.markdown(judged.evaluate())
    judged.result(judged.picture("learned", split="train"), "OK", False)
    assert "1 pictures are of the split train" in evaluation.markdown(judged.evaluate())


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_attempts_the_last_counts(batch: Batch, order: int) -> None:
    sha256 = batch.picture("bad", "logical", rule="R1")
    for attempt, passed in ((1, True), (2, False))[::order]:
        batch.result(sha256, "OK" if passed else "NotOK", not passed, attempt=attempt)
    figures = batch.evaluate()
    assert (figures["overall"]["n"], figures["repeated"]) == (1, 1)
    assert figures["overall"]["escape_rate"] == 0.0
    assert "1 lines are earlier attempts" in evaluation.markdown(figures)


def test_of_equal_attempts_the_newest_counts(batch: Batch) -> None:
    sha256 = batch.picture("good")
    batch.result(sha256, "NotOK", True, id="01a2-7")
    batch.result(sha256, "OK", False, id="01a1-7")
    assert batch.evaluate()["overall"]["overkill_rate"] == 1.0
    batch.result(sha256, "OK", False, id="01a2-7")
    assert batch.evaluate()["overall"]["overkill_rate"] == 0.0


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(judged: Batch, chance: random.Random) -> None:
    resampling = evaluation.Resampling(50, seed=3)
    figures = judged.evaluate(resampling)
    lines = judged.results.read_text().splitlines(keepends=True)
    chance.shuffle(lines)
    judged.results.write_text("".join(lines))
    assert evaluation.evaluate(judged.results, judged.truth, resampling) == figures


def test_intervals_stand_beside_the_figures(judged: Batch) -> None:
    figures = judged.evaluate(evaluation.Resampling(200, seed=1))
    overall = figures["overall"]
    for name, ends in overall["intervals"].items():
        assert ends[0] <= overall[name] <= ends[1], name
    assert set(overall["intervals"]) > {"balanced_accuracy", "auroc", "escape_rate", "cause_named"}
    assert overall["logical"]["intervals"]["balanced_accuracy"]
    assert figures["bootstrap"] == {"draws": 200, "seed": 1, "level": 0.95}
    assert "0.250 (0.000-" in evaluation.table(figures)
    assert judged.evaluate(evaluation.Resampling(200, seed=1)) == figures
    assert judged.evaluate(evaluation.Resampling(200, seed=2)) != figures


def test_sources_of_confidence_have_intervals_too(judged: Batch) -> None:
    for n in range(12):
        name, right = f"more{n}", n % 3 > 0
        judged.result(
            judged.picture(name, "logical"), "NotOK" if right else "OK", right,
            confidence=0.5 + n / 30,
        )  # fmt: skip
    figures = judged.evaluate(evaluation.Resampling(200, seed=1))
    found = figures["overall"]["confidence_sources"]["confidence"]
    assert set(found["intervals"]) == set(found) - {"n", "wrong", "intervals"}
    for name, ends in found["intervals"].items():
        assert ends[0] <= found[name] <= ends[1], name
    assert f"{found['brier']:.3f} ({found['intervals']['brier'][0]:.3f}-" in evaluation.markdown(
        figures
    )


def test_without_draws_there_are_no_intervals(judged: Batch) -> None:
    figures = judged.evaluate()
    assert figures["bootstrap"] is None
    assert "intervals" not in figures["overall"]
    assert "(" not in evaluation.table(figures)


def test_sources_of_confidence_are_shares() -> None:
    told = {"anomaly_score": 0.1, "sum_logprob": math.log(0.25), "evidence": "contradicted"}
    assert evaluation.confidences(told) == {
        "anomaly_score": pytest.approx(0.9), "sum_logprob": pytest.approx(0.25), "evidence": 0.0
    }  # fmt: skip
    assert evaluation.confidences({"evidence": "unchecked"}) == {"evidence": 0.5}
    with pytest.raises(ValueError, match=r"mean_logprob is 0\.5"):
        evaluation.confidences({"mean_logprob": 0.5})
    with pytest.raises(ValueError, match="weakest_token is nan"):
        evaluation.confidences({"weakest_token": math.nan})


def test_every_source_of_confidence_in_the_results_has_its_row(batch: Batch) -> None:
    for name, kind, said, confidence, score in (
        ("a", "good", False, 0.9, 0.0), ("b", "logical", True, 0.8, 1.0),
        ("c", "good", True, 0.6, 0.7), ("d", "logical", True, 0.7, 0.9),
    ):  # fmt: skip
        batch.result(
            batch.picture(name, kind), "NotOK" if said else "OK", said, confidence=confidence,
            anomaly_score=score, decision_score=None, agreement=0.5 if name == "c" else None,
            mean_logprob=-0.1, image_quality=0.4 if name == "a" else None,
        )  # fmt: skip
    batch.result(batch.picture("e"), "NotDecidable", None, confidence=0.1)
    sources = batch.evaluate()["overall"]["confidence_sources"]
    assert list(sources) == [
        "confidence", "agreement", "anomaly_score", "mean_logprob", "evidence", "image_quality"
    ]  # fmt: skip
    assert [found["n"] for found in sources.values()] == [4, 1, 4, 4, 4, 1]
    confidence = sources["confidence"]
    assert confidence["wrong"] == 1
    assert confidence["knows_its_errors"] == 1.0
    assert confidence["aurc"] == pytest.approx(1 / 16)
    assert confidence["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.09) / 4)
    # bins .6-.7 (wrong, .6), .7-.8 (right, .7), .8-.9 (right, .8), .9-1 (right, .9)
    assert confidence["expected_calibration_error"] == pytest.approx((0.6 + 0.3 + 0.2 + 0.1) / 4)
    assert [confidence[f"coverage_at_{e}"] for e in (0.005, 0.01, 0.05)] == [0.75] * 3
    assert sources["agreement"]["knows_its_errors"] is None
    assert sources["anomaly_score"]["brier"] == pytest.approx((0.49 + 0.01) / 4)


@pytest.fixture
def loco(batch: Batch) -> Batch:
    """A product in MVTec LOCO AD's folders, without a truth file, beside one that has it."""
    folder = batch.truth / "pushpins"
    for kind, names in (
        ("good", "ab"), ("logical_anomalies", "cd"), ("structural_anomalies", "e")
    ):  # fmt: skip
        for name in names:
            place = folder / "test" / kind / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(name.encode())
    (folder / "train" / "good").mkdir(parents=True)
    (folder / "train" / "good" / "f.png").write_bytes(b"f")
    batch.result(batch.picture("own"), "OK", False)
    for name in "abcdef":
        bad = name in "cde"
        batch.result(batch.digest(name.encode()), "NotOK" if bad else "OK", bad, rule="R2")
    return batch


def test_folders_of_loco_are_truth(loco: Batch) -> None:
    figures = loco.evaluate()
    pins = figures["products"]["pushpins"]
    assert (pins["n"], pins["good"], pins["anomalous"]) == (5, 2, 3)
    assert (pins["logical"]["anomalous"], pins["structural"]["anomalous"]) == (2, 1)
    assert pins["balanced_accuracy"] == 1.0
    assert pins["cause_named"] is None
    assert figures["products"]["screw_bag"]["n"] == 1
    assert figures["without_truth"] == 1
    assert figures["rule_difference"]["good"]["n"] == 3
    assert "0" not in figures["rule_difference"]


def _masks(folder: Path, classes: list[dict[str, object]], masks: dict[str, list[int]]) -> None:
    (folder / "defects_config.json").write_text(json.dumps(classes))
    for name, values in masks.items():
        for number, value in enumerate(values):
            place = folder / "ground_truth" / name / f"{number:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            mask = Image.new("L", (8, 8))
            mask.putpixel((number, 3), value)
            mask.save(place)


def test_causes_are_read_from_masks_where_there_is_no_more(loco: Batch) -> None:
    classes: list[dict[str, object]] = [
        {"defect_name": "rule_R1", "pixel_value": 255},
        {"defect_name": "additional_pushpin", "pixel_value": 254, "rule": "R2"},
        {"defect_name": "color", "pixel_value": 253},
    ]
    masks = {
        "logical_anomalies/c": [255, 254],
        "logical_anomalies/d": [255],
        "structural_anomalies/e": [253],
    }
    _masks(loco.truth / "pushpins", classes, masks)
    pins = loco.evaluate()["products"]["pushpins"]
    assert pins["cause_named"] == pytest.approx(1 / 2)
    assert pins["structural"]["cause_named"] is None
    (loco.truth / "pushpins" / "ground_truth" / "logical_anomalies" / "c" / "000.png").write_text(
        ""
    )
    _refused(loco.results, loco.truth, "000.png", "mask")
    for broken in ("{}x", "[1]", '[{"defect_name": "rule_R1", "pixel_value": 999}]'):
        (loco.truth / "pushpins" / "defects_config.json").write_text(broken)
        _refused(loco.results, loco.truth, "defects_config.json")


def test_one_picture_called_good_and_anomalous_is_refused(loco: Batch) -> None:
    loco.evaluate()
    (loco.truth / "pushpins" / "test" / "logical_anomalies" / "z.png").write_bytes(b"a")
    _refused(loco.results, loco.truth, "a.png", "z.png", "same picture")


def _refused(results: Path, truth: Path, *words: str) -> None:
    with pytest.raises(UsageError) as caught:
        evaluation.evaluate(results, truth)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_mvtec_ad_is_a_truth(tmp_path: Path) -> None:
    folder = layouts.mvtec_ad(tmp_path)
    truth = read_truth(tmp_path)
    assert sorted((t.product, t.kind, t.image.parent.name) for t in truth.values()) == [
        ("bottle", "bad", "crack"), ("bottle", "good", "good"),
    ]  # fmt: skip
    shutil.rmtree(folder / "train")
    with pytest.raises(UsageError, match="crack") as caught:
        read_truth(tmp_path)
    assert str(caught.value).startswith(f"{folder}/test: ")
    assert "\n" not in str(caught.value)


def test_own_pictures_are_a_truth_by_folder_or_csv(tmp_path: Path) -> None:
    folder = layouts.own(tmp_path, good=2, bad=1)
    by_folder = read_truth(folder)
    assert sorted((t.product, t.anomalous, t.kind) for t in by_folder.values()) == [
        ("tray", False, "good"),
        ("tray", False, "good"),
        ("tray", True, "bad"),
    ]
    for truth in by_folder.values():
        digest = hashlib.sha256(truth.image.read_bytes()).hexdigest()
        assert truth.for_training is (split_of(digest, DEFAULT_SHARES) == "train")
    labels = tmp_path / "parts.csv"
    labels.write_text(
        "image,label,product,rule\ntray/good/0.png,good,screw_bag,\n"
        "tray/bad/scratched/0.png,logical,screw_bag,R2\n"
    )
    good, bad = read_truth(labels).values()
    assert (good.product, good.anomalous, good.rules) == ("screw_bag", False, frozenset())
    assert (bad.kind, bad.rules) == ("logical", {"R2"})
    (tmp_path / "tray" / "good" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"0\.png: no such file"):
        read_truth(labels)


def test_files_that_cannot_be_used_are_refused_by_name(judged: Batch, tmp_path: Path) -> None:
    judged.evaluate()
    results, truth = judged.results, judged.truth
    _refused(tmp_path / "none.jsonl", truth, "none.jsonl", "cannot be read")
    _refused(results, tmp_path / "nowhere", "nowhere", "truth.jsonl", "lad-agent synth")
    (tmp_path / "empty").mkdir()
    _refused(results, tmp_path / "empty", "empty", "truth.jsonl")


@pytest.mark.parametrize(
    "line", ["{oops", "", "[1, 2]", '"text"', '{"image_sha256": [1]}'], ids=repr
)
def test_bad_lines_are_refused_with_their_number(judged: Batch, line: str) -> None:
    judged.evaluate()
    for file in (judged.results, judged.truth / "screw_bag" / "truth.jsonl"):
        good = file.read_text(encoding="utf-8")
        file.write_text(good + line + "\n", encoding="utf-8")
        _refused(judged.results, judged.truth, file.name, f"line {good.count(chr(10)) + 1}")
        file.write_text(good, encoding="utf-8")


def test_files_of_another_kind_are_refused(judged: Batch) -> None:
    judged.evaluate()
    judged.results.write_bytes(b"\x89PNG\xff\xfe")
    _refused(judged.results, judged.truth, "results.jsonl", "not UTF-8")


def test_lines_that_lack_a_field_are_refused(judged: Batch) -> None:
    judged.evaluate()
    sha256 = json.loads(judged.results.read_text().splitlines()[0])["image_sha256"]
    write_lines(judged.results, [{"image_sha256": sha256}])
    _refused(judged.results, judged.truth, "results.jsonl", "line 1", "result")
    truth = judged.truth / "screw_bag" / "truth.jsonl"
    write_lines(truth, [{"image": "test/g0.png"}])
    _refused(judged.results, judged.truth, "truth.jsonl", "line 1", "product")


@pytest.mark.parametrize(
    "field",
    [
        {"decision_score": float("nan")},
        {"confidence": 1.5},
        {"agreement": "high"},
        {"anomalous": "no"},
        {"result": "fine"},
        {"attempt": "second"},
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(batch: Batch, field: dict[str, object]) -> None:
    batch.result(batch.picture("a"), "OK", False)
    batch.write()
    write_lines(batch.results, [json.loads(batch.results.read_text()) | field])
    _refused(batch.results, batch.truth, "results.jsonl, line 1: not of its form")


def test_a_picture_that_has_gone_is_named(judged: Batch) -> None:
    judged.evaluate()
    (judged.truth / "screw_bag" / "test" / "g1.png").unlink()
    _refused(judged.results, judged.truth, "truth.jsonl", "g1.png")


def test_results_of_other_pictures_are_refused(batch: Batch) -> None:
    batch.picture("a")
    batch.result("1" * 64, "OK", False)
    with pytest.raises(UsageError, match=r"results\.jsonl: none of its images has a truth"):
        batch.evaluate()
