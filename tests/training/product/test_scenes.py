"""Composed pictures: what is planned is what is seen, and what is seen is what is told."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent import rationale
from lad_agent.cells import CELLS
from lad_agent.rationale import NOTHING, Facts
from lad_agent.training.product import kit as kits
from lad_agent.training.product import scenes
from lad_agent.training.product.kit import Kit
from lad_agent.training.product.scenes import Kind, Plan
from lad_agent.training.synloco.scene import BOARD, DAMAGE, count_parts
from tests.training.product.drawn import write_kit

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return kits.read(write_kit(tmp_path_factory.mktemp("scenes") / "kit"))


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
        photo = scenes.shoot(rng, kit, scenes.plan(rng, kit, cast(Kind, kind)), 196)
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
