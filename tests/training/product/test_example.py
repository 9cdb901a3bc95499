"""The example's product can be trained on, and judged by."""

import importlib.util
from pathlib import Path

from lad_agent.training import held_out
from lad_agent.training.evaluation.truth import read_truth
from lad_agent.training.product import kit as kits
from lad_agent.training.product import scenes
from lad_agent.training.sources import open_source

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_product.py"


def test_the_example_writes_a_kit_and_pictures_to_judge_by(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("own_product", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.write(tmp_path, own=4, others=6)
    kit = kits.read(tmp_path / "sewing_kit")
    assert {noun: len(cuts) for noun, cuts in kit.parts.items()} == dict.fromkeys(
        ("buttons", "spools", "thimbles"), 12
    )
    scenes.refuse_unfit(kit)
    assert kit.values == {"card": ("blue", "green", "red", "none")}
    labelled = list(open_source(tmp_path / "sewing_kit"))
    assert sorted(one.kind for one in labelled) == ["bad", "bad", "good", "good"]
    judged = tmp_path / "pictures" / "sewing_kit"
    truth = list(read_truth(judged).values())
    assert [one.product for one in truth] == ["sewing_kit"] * 6
    assert sum(one.anomalous for one in truth) == 3
    assert len(held_out.pictures(judged)) == 6, "training judges by them too"
