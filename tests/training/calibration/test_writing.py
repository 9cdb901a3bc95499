"""The calibration in the recipe: a new version, all else as it was written."""

import hashlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent import recipe
from lad_agent.errors import RecipeError, UsageError
from lad_agent.training.calibration import Asked, choose, write
from lad_agent.training.calibration.writing import edited
from tests.scripted import part as picture
from tests.training.calibration.synthetic import parts

TEXT = """\
# Ours.
product: screw_bag
rules:
  - {id: R1, text: exactly 2 washers}   # the small ones
references: [reference.png]
policy:
  samples: 0        # no draws
  audit_rate: 0.0
# the end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    picture("reference", 0).save(tmp_path / "reference.png")
    (tmp_path / "recipe.yaml").write_text(TEXT)
    return tmp_path / "recipe.yaml"


def test_the_recipe_gets_a_new_version_and_keeps_its_words(path: Path) -> None:
    before = recipe.load(path)
    made = choose(parts(100, 100), before, Asked(0.05, fit_share=0))
    after = write(path, made)
    assert after.task_version == before.task_version
    assert after.recipe_version != before.recipe_version
    assert after.policy.pass_confidence == made.changes["pass_confidence"]
    assert after.calibration == made.calibration
    assert "at most 5.0% escapes, 95% sure" in path.read_text()
    kept = [line for line in path.read_text().splitlines() if line in TEXT.splitlines()]
    assert kept == TEXT.splitlines()
    assert recipe.check(path) == []


def test_calibrating_again_replaces_it_and_older_versions_keep_their_file(path: Path) -> None:
    loaded = recipe.load(path)
    first = write(path, choose(parts(100, 100), loaded, Asked(0.05, 0.05, fit_share=0)))
    old = path.read_text()
    second = write(path, choose(parts(100, 100, seed=1), first, Asked(0.1, fit_share=0)))
    assert second.recipe_version != first.recipe_version
    assert first.policy.reject_confidence is not None
    assert second.policy.reject_confidence is None
    assert path.read_text().count("calibration:") == 1
    path.write_text(old)
    assert recipe.load(path).recipe_version == first.recipe_version


def test_a_calibration_edited_by_hand_is_refused(path: Path) -> None:
    write(path, choose(parts(100, 100), recipe.load(path), Asked(0.05, fit_share=0)))
    [file] = path.parent.glob("*.json")
    whole = file.read_text()
    file.write_text(whole.replace('"at_most": 0.05', '"at_most": 0.01'))
    with pytest.raises(
        RecipeError,
        match=r"line 10: calibration .* was changed after it was made; run lad-agent calibrate",
    ):
        recipe.load(path)
    file.unlink()
    with pytest.raises(RecipeError, match=r"calibration .* is not there"):
        recipe.load(path)
    file.write_text(whole)
    assert recipe.check(path) == []


def test_a_calibration_of_another_format_is_refused(path: Path) -> None:
    write(path, choose(parts(60, 60), recipe.load(path), Asked(0.1)))
    [file] = path.parent.glob("*.json")
    other = file.read_text().replace('"format": 1', '"format": 2').encode()
    old, new = (hashlib.sha256(data).hexdigest() for data in (file.read_bytes(), other))
    file.write_bytes(other)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RecipeError, match=r"is of another version; run lad-agent calibrate again"):
        recipe.load(path)


def test_a_recipe_of_before_calibrations_keeps_its_version(path: Path) -> None:
    """Its hash is that of the policy without what was not set."""
    path.write_text(TEXT.split("policy:")[0])
    plain = recipe.load(path)
    path.write_text(TEXT.split("policy:")[0] + "policy: {pass_confidence: null}\n")
    assert recipe.load(path).recipe_version == plain.recipe_version
    after = write(path, choose(parts(100, 100), _fewer_draws(path), Asked(0.05, fit_share=0)))
    assert after.policy.pass_confidence is not None


@pytest.mark.parametrize("empty", ["calibration: null", "calibration:", "calibration: ~  # later"])
def test_a_calibration_that_was_emptied_by_hand_is_filled(path: Path, empty: str) -> None:
    path.write_text(TEXT.replace("policy:", f"{empty}\npolicy:"))
    after = write(path, choose(parts(100, 100), recipe.load(path), Asked(0.05, fit_share=0)))
    assert after.calibration is not None
    assert path.read_text().count("calibration:") == 1
    assert path.read_text().count("# later") == empty.count("# later")


def _fewer_draws(path: Path) -> recipe.Recipe:
    path.write_text(TEXT.split("policy:")[0] + "policy: {samples: 0}\n")
    return recipe.load(path)


def test_a_recipe_with_keys_of_another_format_is_explained(path: Path) -> None:
    path.write_text(TEXT.replace("policy:", "thresholds:"))
    with pytest.raises(RecipeError, match="line 6: unknown key 'thresholds'"):
        recipe.load(path)


CHANGES = {"policy": {"a": 0.25, "b": None}, "calibration": {"file": "x: #y", "n": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "k: 1\n",
        "k: 1",
        "k: 1\r\npolicy:\r\n  z: 1 # c\r\nlast: 2\r\n",
        "{k: 1, policy: {z: 2}}",
        '{"k": [1, 2], "policy": {}}\n',
        "policy: {a: 1, b: 2, z: 3} # c\nk: 1\n",
        "policy:\n  b: 1   # b\n  a: 2   # a\n\n\nk: >\n  words\n  and more\n",
        "k: |\n  text\npolicy:\n    z: 1",
        "calibration:\n  file: old\n  n: 5\n  other: 7\nk: {m: [1]}\n",
        "k:\n  - 1\n  - n: 2\n",
    ],
)
def test_any_way_of_writing_a_mapping_can_be_edited(text: str) -> None:
    found = yaml.safe_load(text)
    out = yaml.safe_load(edited(text, CHANGES))
    assert out["policy"]["a"] == 0.25
    assert out["policy"].get("b") is None
    assert out["calibration"]["file"] == "x: #y"
    assert {k: v for k, v in out.items() if k in found and k not in CHANGES} == {
        k: v for k, v in found.items() if k not in CHANGES
    }
    comments = [line[line.index("#") :] for line in text.splitlines() if "# " in line]
    assert all(comment in edited(text, CHANGES) for comment in comments)


def test_what_cannot_be_edited_is_left_alone() -> None:
    with pytest.raises(UsageError, match="write policy and calibration as plain mappings"):
        edited("a: &x {z: 1}\nb: *x\npolicy: *x\n", CHANGES)


KEYS = st.sampled_from(["k", "l", "m"])
VALUES = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6),
    st.none(),
)
PLAIN = st.dictionaries(KEYS, st.one_of(VALUES, st.lists(VALUES, max_size=2)), min_size=1)


@settings(deadline=None, max_examples=60)
@given(other=PLAIN, policy=st.none() | PLAIN, flow=st.booleans(), value=st.floats(0, 1))
def test_edits_come_out_as_meant(
    other: dict[str, object], policy: dict[str, object] | None, flow: bool, value: float
) -> None:
    content = other | ({"policy": policy} if policy else {})
    text = yaml.safe_dump(content, default_flow_style=flow, allow_unicode=True)
    out = yaml.safe_load(edited(text, {"policy": {"pass_confidence": value}}))
    assert out == content | {"policy": (policy or {}) | {"pass_confidence": value}}
