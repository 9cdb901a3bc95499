"""Recipes: read, versioned, and every fault explained with its line."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lad_agent import rationale, recipe
from lad_agent.errors import NotFound, RecipeError
from lad_agent.inputs import check_references
from lad_agent.training import synloco
from tests.calibrated import write_calibrated
from tests.scripted import part, write_recipe

GOOD = """\
product: nut_tray
rules:
  - id: R1
    text: exactly 2 nuts
references: [reference.png]
"""


def _written(folder: Path, text: str) -> Path:
    part("reference", 0).save(folder / "reference.png")
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def _faults(folder: Path, text: str) -> list[str]:
    return [str(fault) for fault in recipe.check(_written(folder, text))]


def test_a_recipe_is_read_with_its_defaults(tmp_path: Path) -> None:
    loaded = recipe.load(_written(tmp_path, GOOD))
    assert loaded.product == "nut_tray"
    assert loaded.references == (tmp_path / "reference.png",)
    assert loaded.policy == recipe.Policy()
    assert loaded.image_size == 196


@pytest.mark.parametrize("product", recipe.SHIPPED)
def test_shipped_recipes_are_in_order(product: str) -> None:
    path = recipe.shipped(product)
    assert recipe.check(path) == []
    assert check_references(path) == []
    loaded = recipe.load(path)
    assert loaded.product == product
    assert all(rationale.read_rule(rule.text) for rule in loaded.rules)


@pytest.mark.parametrize("product", recipe.SHIPPED)
def test_shipped_rules_are_those_of_the_pictures(product: str) -> None:
    loaded = recipe.load(recipe.shipped(product))
    rules = tuple((rule.id, rule.text) for rule in loaded.rules)
    assert rules == tuple(synloco.module(product).RULES)


def test_an_unknown_product_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'screw_bag'"):
        recipe.shipped("screwbag")


def test_the_policy_keeps_the_task_and_a_rule_does_not(tmp_path: Path) -> None:
    first = recipe.load(_written(tmp_path, GOOD))
    same = recipe.load(_written(tmp_path, "# a comment\n" + GOOD + "image_size: 196\n"))
    policy = recipe.load(_written(tmp_path, GOOD + "policy: {min_confidence: 0.7}\n"))
    rule = recipe.load(_written(tmp_path, GOOD.replace("2 nuts", "3 nuts")))
    size = recipe.load(_written(tmp_path, GOOD + "image_size: 224\n"))
    assert (first.task_version, first.recipe_version) == (same.task_version, same.recipe_version)
    assert policy.task_version == first.task_version
    assert policy.recipe_version != first.recipe_version
    assert len({first.task_version, rule.task_version, size.task_version}) == 3


def test_how_many_references_are_shown_is_part_of_the_task(tmp_path: Path) -> None:
    plain = recipe.load(_written(tmp_path, GOOD))
    assert plain.references_shown == 1
    same = recipe.load(_written(tmp_path, GOOD + "references_shown: 1\n"))
    assert same.recipe_version == plain.recipe_version
    part("second", 1).save(tmp_path / "second.png")
    two = GOOD.replace("[reference.png]", "[reference.png, second.png]")
    one, both, other = (
        recipe.load(_written(tmp_path, two + more))
        for more in ("", "references_shown: 2\n", "policy: {other_references: 1}\n")
    )
    assert len({plain.task_version, one.task_version, both.task_version}) == 3
    assert other.task_version == one.task_version
    assert other.recipe_version != one.recipe_version
    assert [one.references[one.shown(turn)] for turn in (0, 1)] == [
        (tmp_path / "reference.png",),
        (tmp_path / "second.png",),
    ]
    assert both.references[both.shown(0)] == both.references


def test_another_reference_is_another_task(tmp_path: Path) -> None:
    first = recipe.load(_written(tmp_path, GOOD))
    part("another", 1).save(tmp_path / "reference.png")
    assert recipe.load(tmp_path / "recipe.yaml").task_version != first.task_version


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("rules:", "ruls:"), "line 2: unknown key 'ruls'; did you mean 'rules'?"),
        (("id: R1", "id: 1"), "line 3: rules.0.id: "),
        (("    text: exactly 2 nuts\n", ""), "line 3: rules.0.text is missing"),
        (("product: nut_tray\n", ""), "line 1: product is missing"),
        (("nut_tray", "nut tray!"), "line 1: product: "),
        (("references: [reference.png]", "references: []"), "line 5: references: "),
        (("reference.png", "gone.png"), "line 5: reference image 'gone.png' is not there"),
        (("reference.png]", "reference.png"), "not valid YAML"),
        (("product: nut_tray", "product: a\nproduct: b"), "line 2: 'product' is written twice"),
        (("exactly 2 nuts", "a < b"), "without '<'"),
        (("nut_tray", "[nut_tray"), "not valid YAML"),
    ],
)
def test_every_fault_has_its_line(tmp_path: Path, change: tuple[str, str], fault: str) -> None:
    text = GOOD.replace(*change)
    assert any(fault in found for found in _faults(tmp_path, text)), _faults(tmp_path, text)


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ("policy:\n  pass_bellow: 0.1\n", "line 7: unknown key 'pass_bellow'; did you mean"),
        ("policy:\n  min_confidence: 1.5\n", "line 7: policy.min_confidence: "),
        ("policy:\n  pass_below: 0.9\n", "pass_below must not exceed reject_above"),
        ("policy:\n  audit_rate: .nan\n", "line 7: policy.audit_rate: "),
        ("image_size: 10\n", "line 6: image_size: "),
        ("references_shown: 0\n", "line 6: references_shown: "),
        ("references_shown: 2\n", "ask for 2 references, there are 1; list more, or show fewer"),
        ("policy: {other_references: 3}\n", "ask for 4 references, there are 1"),
        ("region: {left: 0.9, right: 0.1}\n", "the region is empty"),
        ("region: {left: -1}\n", "line 6: region.left: "),
    ],
)
def test_faults_of_policy_and_region(tmp_path: Path, extra: str, fault: str) -> None:
    assert any(fault in found for found in _faults(tmp_path, GOOD + extra))


def test_all_faults_are_told_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = GOOD.replace("id: R1", "id: X") + "policy: {samples: -1}\nimage_size: 1\nfoo: 1\n"
    faults = recipe.check(_written(tmp_path, text))
    assert [fault.line for fault in faults] == [3, 6, 7, 8]
    with pytest.raises(RecipeError, match="and 3 more: lad-agent recipe check"):
        recipe.load(tmp_path / "recipe.yaml")


def test_a_rule_id_is_used_once(tmp_path: Path) -> None:
    twice = GOOD.replace("references", "  - id: R1\n    text: exactly 1 nut\nreferences")
    assert any("R1 is used twice" in fault for fault in _faults(tmp_path, twice))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "3"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "a recipe is a mapping" in _faults(tmp_path, text)[0]


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    assert "no such recipe" in str(recipe.check(tmp_path / "gone.yaml")[0])
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in str(recipe.check(tmp_path / "bytes.yaml")[0])
    with pytest.raises(RecipeError):
        recipe.load(tmp_path)


def test_yaml_cannot_build_objects(tmp_path: Path) -> None:
    text = GOOD.replace("nut_tray", "!!python/object/apply:os.getcwd []")
    assert "not valid YAML" in _faults(tmp_path, text)[0]


def test_a_reference_that_is_no_picture_is_a_fault_of_its_line(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    (tmp_path / "reference.png").write_text("no picture")
    [fault] = check_references(path)
    assert fault.line == 5
    assert "not an image" in fault.message


@given(st.text(max_size=200))
def test_any_text_is_explained_and_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    assert recipe.check(path)


_VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


@given(
    st.dictionaries(
        st.sampled_from([*recipe.RecipeFile.model_fields, "other"]),
        st.one_of(_VALUES, st.lists(_VALUES, max_size=3), st.dictionaries(st.text(), _VALUES)),
    )
)
def test_any_mapping_is_explained(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "mapping.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    for fault in recipe.check(path):
        assert fault.line >= 1
        assert "\n" not in fault.message


def test_a_calibration_that_vanishes_while_it_is_read_is_no_uncalibrated_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thresholds would be held against the raw confidence."""
    made = write_calibrated(tmp_path / "tray")
    reading = recipe._calibration

    def once(path: Path, named: recipe.Calibrated) -> object:
        found = reading(path, named)
        (path.parent / named.file).unlink()
        return found

    monkeypatch.setattr(recipe, "_calibration", once)
    with pytest.raises(RecipeError, match="is not there; run lad-agent calibrate again"):
        recipe.load(made.path)
