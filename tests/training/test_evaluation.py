"""Results joined with the truth: rates by hand, AUROC by its definition, bad files by name."""

from __future__ import annotations

import hashlib
import json
from itertools import product as pairs
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent import recipe
from lad_agent.errors import UsageError
from lad_agent.training import evaluation

SCORES = st.lists(st.floats(0, 1) | st.sampled_from((0.0, 0.5, 1.0)), max_size=12)


@settings(deadline=None)
@given(good=SCORES, bad=SCORES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(
    good: list[float], bad: list[float]
) -> None:
    area = evaluation.auroc(good, bad)
    if not good or not bad:
        assert area is None
        return
    ordered = [1.0 if b > g else 0.5 if b == g else 0.0 for g, b in pairs(good, bad)]
    assert area == pytest.approx(sum(ordered) / len(ordered), abs=1e-12)


def test_auroc_by_hand() -> None:
    assert evaluation.auroc([0.1, 0.2], [0.8, 0.9]) == 1.0
    assert evaluation.auroc([0.8, 0.9], [0.1, 0.2]) == 0.0
    assert evaluation.auroc([0.5, 0.5], [0.5]) == 0.5
    assert evaluation.auroc([0.1, 0.5], [0.5, 0.5, 0.3]) == pytest.approx(4 / 6)


class Batch:
    """A data set of pictures that are mere bytes, and the results about them."""

    def __init__(self, folder: Path) -> None:
        self.truth, self.results = folder / "truth", folder / "results.jsonl"
        self._lines: dict[str, list[dict[str, Any]]] = {}
        self._told: list[dict[str, Any]] = []

    def picture(
        self,
        name: str,
        kind: str = "good",
        *,
        product: str = "screw_bag",
        rule: str | None = None,
        objects: dict[str, int] | None = None,
        stratum: str = "in-range",
    ) -> str:
        """Write a picture and its truth; returns the hash of its bytes."""
        image = self.truth / product / "test" / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(f"{product} {name}".encode())
        things = [{"cls": c} for c, n in (objects or {}).items() for _ in range(n)]
        line = {
            "image": f"test/{name}.png", "product": product, "anomalous": kind != "good",
            "kind": kind, "rule": rule, "stratum": stratum, "objects": things,
        }  # fmt: skip
        self._lines.setdefault(product, []).append(line)
        return hashlib.sha256(image.read_bytes()).hexdigest()

    def result(self, sha256: str, result: str, anomalous: bool | None, **more: Any) -> None:
        """Note one line of results."""
        self._told.append(
            {
                "image_sha256": sha256, "result": result, "anomalous": anomalous,
                "decision_score": None if anomalous is None else 0.9 if anomalous else 0.1,
                "well_formed": anomalous is not None, "rule": None, "evidence": "consistent",
            }
            | more
        )  # fmt: skip

    def evaluate(self) -> evaluation.Metrics:
        """Write both files and evaluate them."""
        for product, lines in self._lines.items():
            _write(self.truth / product / "truth.jsonl", lines)
        _write(self.results, self._told)
        return evaluation.evaluate(self.results, self.truth)


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


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
    assert baselines["always_yes"] == {"balanced_accuracy": 0.5, "accuracy": pytest.approx(4 / 9)}
    assert baselines["always_no"] == {"balanced_accuracy": 0.5, "accuracy": pytest.approx(5 / 9)}


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
        "product", "---", "all", "pushpins", "screw_bag"
    ]  # fmt: skip
    assert "-" in rows[3].split("|")[3]


def _refused(results: Path, truth: Path, *words: str) -> None:
    with pytest.raises(UsageError) as caught:
        evaluation.evaluate(results, truth)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


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
    _write(judged.results, [{"image_sha256": sha256}])
    _refused(judged.results, judged.truth, "results.jsonl", "line 1", "result")
    truth = judged.truth / "screw_bag" / "truth.jsonl"
    _write(truth, [{"image": "test/g0.png"}])
    _refused(judged.results, judged.truth, "truth.jsonl", "line 1", "product")


def test_a_picture_that_has_gone_is_named(judged: Batch) -> None:
    judged.evaluate()
    (judged.truth / "screw_bag" / "test" / "g1.png").unlink()
    _refused(judged.results, judged.truth, "truth.jsonl", "g1.png")


def test_results_of_other_pictures_are_refused(batch: Batch) -> None:
    batch.picture("a")
    batch.result("1" * 64, "OK", False)
    with pytest.raises(UsageError, match=r"results\.jsonl: none of its images has a truth"):
        batch.evaluate()
