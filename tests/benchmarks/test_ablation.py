"""The pictures that the comparison of stages learns from."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ablation
from lad_agent.training import texts
from lad_agent.training.sources import check, open_source


def test_lessons_hold_any_content_and_its_truth(tmp_path: Path) -> None:
    ablation.lessons(tmp_path / "lessons", "screw_bag", 12)
    written = (tmp_path / "lessons" / "screw_bag" / "truth.jsonl").read_bytes()
    ablation.lessons(tmp_path / "lessons", "screw_bag", 3)
    assert (tmp_path / "lessons" / "screw_bag" / "truth.jsonl").read_bytes() == written
    report = check.require([open_source(tmp_path / "lessons")])
    assert len(report.examples) == 12
    assert {e.split for e in report.examples} == {"train"}
    assert {e.anomalous for e in report.examples} == {True, False}
    counts = {len(e.facts.places["washers"]) for e in report.examples if e.facts}
    assert len(counts) > 2
    assert len(texts.tasks(report.examples)["screw_bag"].rules) == 5
