"""The pictures of a product of one's own that the comparison of GRPO and SFT learns from."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ablation import write_lessons
from benchmarks.own_product import composed
from lad_agent import rationale
from lad_agent.training.product import kit as kits
from lad_agent.training.sources import check, open_source
from tests.training.product.drawn import write_kit


def test_composed_pictures_are_taught_with_the_verdict_that_the_rules_give(tmp_path: Path) -> None:
    kit = kits.read(write_kit(tmp_path / "kit"))
    write_lessons(tmp_path / "lessons" / kit.product, kit.recipe, composed(kit, 30))
    examples = check.require([open_source(tmp_path / "lessons")]).examples
    assert len(examples) == 30
    assert {e.anomalous for e in examples} == {True, False}
    for example in examples:
        assert example.facts is not None
        clauses = rationale.clauses(kit.product, kit.recipe.rules, example.facts)
        broken = [clause.rule for clause in clauses if not clause.ok]
        assert example.anomalous == bool(broken)
        assert example.rule == (broken[0] if broken else None)
