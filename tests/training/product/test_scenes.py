"""Composed pictures: what is planned is what is seen, and what is seen is what is told."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent import rationale
from lad_agent.cells import CELLS
from lad_agent.errors import UsageError
from lad_agent.rationale import NOTHING, Facts
from lad_agent.training.pocket import spoiling
from lad_agent.training.pocket.data import Pixels
from lad_agent.training.pocket.spoiling import Shown
from lad_agent.training.product import kit as kits
from lad_agent.training.product import scenes
from lad_agent.training.product.kit import Kit
from lad_agent.training.product.scenes import Kind, Plan
from lad_agent.training.synloco.scene import BOARD, DAMAGE, count_parts
from tests.training.product.drawn import RECIPE, plate, save, write_kit, write_paired

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return kits.read(write_kit(tmp_path_factory.mktemp("scenes") / "kit"))


def _plain(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, count: int
) -> list[tuple[Pixels, Pixels, Facts]]:
    """Pictures of the kit, none of them covered or spoiled; so until the test sets a share."""
    for share in ("NOTHING_SHARE", "COVERED_SHARE", "SPOILED_SHARE"):
        monkeypatch.setattr(scenes, share, 0.0)
    return [scenes.picture(kit, 4, index) for index in range(count)]


def _broken(kit: Kit, planned: Plan) -> list[str]:
    places = {noun: ["A1"] * number for noun, number in planned.counts.items()}
    facts = Facts(kit.product, places, planned.values)
    said = rationale.clauses(kit.product, kit.recipe.rules, facts)
    return [statement.subject for statement in said if not statement.ok]


@settings(deadline=None)
@given(seed=SEEDS)
def test_plans_keep_all_rules_or_break_one(kit: Kit, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert _broken(kit, scenes.plan(rng, kit, "normal")) == []
    assert len(_broken(kit, scenes.plan(rng, kit, "logical"))) == 1
    varied = scenes.plan(rng, kit, "varied")
    assert set(varied.counts) == set(kit.nouns)
    assert varied.values["lid"] in kit.values["lid"]


def _told(kit: Kit, seed: int) -> list[str]:
    """Rules that a normal picture breaks."""
    photo = scenes.shoot(np.random.default_rng(seed), kit, "normal", 196)
    said = rationale.clauses(kit.product, kit.recipe.rules, scenes.facts_of(kit, photo))
    return [str(statement.rule) for statement in said if not statement.ok]


def _crowded(folder: Path, number: int, size: tuple[int, int]) -> Kit:
    """A kit of good parts with this many plates, cut out at `size` px with a rim around."""
    write_kit(folder, RECIPE.replace("1 plate", f"{number} plates"))
    for n in range(5):
        save(plate(n, (70, 90, 60)).resize(size), folder / f"parts/plates/{n}.png")
    return kits.read(folder)


def test_normal_pictures_have_all_that_the_rules_want(tmp_path: Path) -> None:
    kit = _crowded(tmp_path / "kit", 4, (120, 96))
    scenes.refuse_unfit(kit)
    rng = np.random.default_rng(0)
    first = [scenes.compose(rng, kit, scenes.plan(rng, kit, "normal")) for _ in range(3)]
    assert any(count_parts(scene)["plates"] < 4 for scene in first), "nothing finds no room"
    assert [_told(kit, seed) for seed in range(3)] == [[]] * 3


def test_good_parts_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "TRIED", 12)
    kit = _crowded(tmp_path / "kit", 5, (150, 120))  # 60% of the region
    with pytest.raises(UsageError, match="good parts do not fit the region") as caught:
        scenes.refuse_unfit(kit)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'kit' / 'recipe.yaml'}: ")
    assert "R2 'exactly 5 plates'" in said
    assert "R4" not in said
    assert "enlarge the region" in said
    assert "\n" not in said


RULE = "cap fits lid: green for red, black for blue"


@pytest.mark.parametrize(
    "rules",
    [
        (RULE, "lid is blue"),
        ("lid is red", RULE),
        ("cap fits tag: green for red, black for blue", "tag equals lid", "lid is blue"),
        (RULE, "lid is none"),
        ("lid equals tag", "lid is none"),
    ],
)
def test_one_rule_does_not_undo_another(tmp_path: Path, rules: tuple[str, ...]) -> None:
    kit = kits.read(write_paired(tmp_path / "kit", rules))
    scenes.refuse_unfit(kit)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        assert _broken(kit, scenes.plan(rng, kit, "normal")) == []
        assert _broken(kit, scenes.plan(rng, kit, "logical")) != []
    assert _told(kit, 1) == []


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("lid is red", "lid is blue"), ["R1 'lid is red'", "R2 'lid is blue'"]),
        (("exactly 1 ring", "exactly 2 rings"), ["R1 'exactly 1 ring'", "R2 'exactly 2 rings'"]),
        (("exactly 2 rings", "cap equals lid"), ["R2 'cap equals lid'"]),
        ((RULE, "lid is red", "cap is black"), ["R1 ", "R3 'cap is black'"]),
    ],
)
def test_rules_that_contradict_each_other_are_refused(
    tmp_path: Path, rules: tuple[str, ...], named: list[str]
) -> None:
    kit = kits.read(write_paired(tmp_path / "kit", rules))
    with pytest.raises(UsageError, match="the rules contradict each other") as caught:
        scenes.refuse_unfit(kit)
    for rule in named:
        assert rule in str(caught.value)
    assert ("R1" in str(caught.value)) is any("R1" in rule for rule in named)
    assert "change or remove" in str(caught.value)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_what_is_planned_is_there(kit: Kit, seed: int) -> None:
    rng = np.random.default_rng(seed)
    planned = Plan({"rings": 3, "plates": 2, DAMAGE: 1}, {"lid": "blue"})
    scene = scenes.compose(rng, kit, planned)
    assert count_parts(scene) == planned.counts
    assert scene.attributes == {"lid": "blue"}
    for part in scene.parts:
        x0, y0, x1, y1 = part.box
        assert 0 <= x0 < x1 <= BOARD
        assert 0 <= y0 < y1 <= BOARD


def test_parts_do_not_lie_on_each_other(kit: Kit) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        planned = Plan({"rings": 0, "plates": 5, DAMAGE: 0}, {"lid": NOTHING})
        middles = np.array([part.centre for part in scenes.compose(rng, kit, planned).parts])
        apart = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1))
        assert apart[np.triu_indices(len(middles), 1)].min() > 24


def test_a_full_board_tells_of_no_more_than_lies_there(kit: Kit) -> None:
    planned = Plan({"rings": 90, "plates": 90, DAMAGE: 0}, {"lid": "red"})
    scene = scenes.compose(np.random.default_rng(0), kit, planned)
    assert 10 < len(scene.parts) < 180


def test_the_parts_can_be_seen(kit: Kit) -> None:
    bare = Plan({"rings": 0, "plates": 0, DAMAGE: 0}, {"lid": NOTHING})
    for seed in range(5):
        scene = scenes.compose(
            np.random.default_rng(seed), kit, Plan({**bare.counts, "plates": 1}, bare.values)
        )
        (part,) = scene.parts
        x, y = (round(v) for v in part.centre)
        np.testing.assert_allclose(scene.image[y, x], (70, 90, 60), atol=25)


def test_round_parts_are_stretched_as_the_region_is(kit: Kit) -> None:
    planned = Plan({"rings": 4, "plates": 0, DAMAGE: 0}, {"lid": NOTHING})
    scene = scenes.compose(np.random.default_rng(1), kit, planned)
    for part in scene.parts:
        x0, y0, x1, y1 = part.box
        wanted = kit.stretch[0] / kit.stretch[1]
        assert (x1 - x0) / (y1 - y0) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_photographs_show_the_middle_of_every_part(kit: Kit, kind: str) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        photo = scenes.shoot(rng, kit, cast(Kind, kind), 196)
        assert photo.image.shape == (196, 196, 3)
        facts = scenes.facts_of(kit, photo)
        assert tuple(facts.places) == kit.nouns
        for part in photo.parts:
            assert min(part.centre) > 0
            assert max(part.centre) < 196
            assert part.cell in facts.places[part.cls]


def test_pictures_depend_on_seed_and_number_alone(kit: Kit) -> None:
    shown = set()
    for index in range(16):
        pixels, cover, facts = scenes.picture(kit, 2, index)
        again = scenes.picture(kit, 2, index)
        assert np.array_equal(pixels, again[0])
        assert facts == again[2]
        assert pixels.shape == (196, 196, 3)
        by_noun = cover.reshape(len(CELLS), 4, len(kit.nouns)).max(axis=(0, 1)) > 0
        seen = {noun: bool(places) for noun, places in facts.places.items()}
        assert [seen.get(noun, False) for noun in kit.nouns] == by_noun.tolist()
        shown.add(pixels.tobytes())
    assert len(shown) == 16


def test_some_pictures_are_of_something_else(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "NOTHING_SHARE", 1.0)
    for index in range(3):
        pixels, cover, facts = scenes.picture(kit, 2, index)
        assert facts == Facts(NOTHING)
        assert pixels.shape == (196, 196, 3)
        assert not cover.any()


def test_a_covered_part_leaves_nothing_to_judge_and_what_stays_on_the_rim_hides_nothing(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _plain(kit, monkeypatch, 12)
    monkeypatch.setattr(scenes, "COVERED_SHARE", 1.0)
    monkeypatch.setattr(scenes, "BESIDE_SHARE", 1.0)
    rim = 8  # of 196 px: 3%, a slant, and the pixel that resizing mixes
    for index, (pixels, cover, facts) in enumerate(plain):
        beside, same, seen = scenes.picture(kit, 4, index)
        assert seen == facts
        assert np.array_equal(same, cover)
        assert np.array_equal(beside[rim:-rim, rim:-rim], pixels[rim:-rim, rim:-rim])
    monkeypatch.setattr(scenes, "BESIDE_SHARE", 0.0)
    for index, (pixels, _, _) in enumerate(plain):
        covered, cover, facts = scenes.picture(kit, 4, index)
        assert facts == Facts(NOTHING)
        assert not cover.any()
        assert (covered != pixels).any(axis=2).mean() > 0.1


def test_a_spoiled_picture_is_told_as_it_is_or_as_nothing(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _plain(kit, monkeypatch, 40)
    monkeypatch.setattr(scenes, "SPOILED_SHARE", 1.0)
    lost = 0
    for index, (pixels, cover, facts) in enumerate(plain):
        spoiled, still, seen = scenes.picture(kit, 4, index)
        if seen == facts:
            assert np.array_equal(still, cover)
            continue
        lost += 1
        assert seen == Facts(NOTHING)
        assert not still.any()
        assert not np.array_equal(spoiled, pixels)
    assert 8 < lost < 32


def test_no_light_of_a_legible_glare_reaches_in_beyond_the_rim(kit: Kit) -> None:
    rng = np.random.default_rng(6)
    photo = scenes.shoot(rng, kit, "normal", 196)
    shown = Shown.of(photo, (scenes.RIM,) * 4, (scenes.HIDING,) * 4)
    lit, legible = spoiling.glare(rng, np.zeros_like(photo.image), shown, True)
    assert legible
    assert lit.any()
    assert lit[6:-6, 6:-6].max() <= 255 * spoiling.DIM
