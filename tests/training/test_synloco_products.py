"""Plans and drawings of the breakfast box, the juice bottle and the splicing connectors."""

from __future__ import annotations

from collections import Counter, defaultdict
from types import ModuleType

import numpy as np
import pytest
import yaml

from lad_agent.rationale import Facts, clauses
from lad_agent.recipe import Rule, shipped
from lad_agent.training.synloco import breakfast_box, juice_bottle, splicing_connectors
from lad_agent.training.synloco.scene import BOARD, DAMAGE, Look, Plan, Scene, count_parts

PRODUCTS = (breakfast_box, juice_bottle, splicing_connectors)
LOOKS = (
    Look(),
    Look(scale=0.88, background="felt", hue_shift=-1.0, touching=True, clutter=True),
    Look(scale=1.12, background="wood", hue_shift=1.0),
    Look(scale=1.06, background="tiles", touching=True),
)
MANY = 300


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _broken_rules(product: ModuleType, plan: Plan) -> list[str]:
    places = {name: ["A1"] * count for name, count in plan.counts.items()}
    facts = Facts(plan.product, places, plan.attributes)
    rules = [Rule(id=name, text=text) for name, text in product.RULES]
    found = clauses(product.PRODUCT, rules, facts)
    return [clause.rule for clause in found if not clause.ok and clause.rule]


def _values_agree(product: ModuleType, plan: Plan) -> bool:
    attributes = product.ATTRIBUTES
    return set(plan.attributes) == set(attributes) and all(
        value in attributes[name] for name, value in plan.attributes.items()
    )


def _check_scene(product: ModuleType, plan: Plan, scene: Scene) -> None:
    wanted = {name: count for name, count in plan.counts.items() if count}
    assert count_parts(scene) == wanted
    assert scene.image.shape == (BOARD, BOARD, 3)
    assert scene.image.dtype == np.uint8
    assert scene.attributes == plan.attributes
    for part in scene.parts:
        x0, y0, x1, y1 = part.box
        assert 0 <= x0 < x1 <= BOARD, part
        assert 0 <= y0 < y1 <= BOARD, part
        assert x0 <= part.centre[0] <= x1
        assert y0 <= part.centre[1] <= y1


@pytest.mark.parametrize("product", PRODUCTS)
def test_rules_are_those_of_the_shipped_recipe(product: ModuleType) -> None:
    recipe = yaml.safe_load(shipped(product.PRODUCT).read_text(encoding="utf-8"))
    assert [(r["id"], r["text"]) for r in recipe["rules"]] == list(product.RULES)


@pytest.mark.parametrize("product", PRODUCTS)
def test_normal_plans_break_no_rule(product: ModuleType) -> None:
    for i in range(MANY):
        plan = product.normal(_rng(1, i))
        assert _values_agree(product, plan)
        assert set(plan.counts) == set(product.CLASSES)
        assert _broken_rules(product, plan) == []
        assert (plan.rule, plan.cause, plan.structural) == (None, None, None)


@pytest.mark.parametrize("product", PRODUCTS)
def test_logical_plans_break_the_named_rule_first(product: ModuleType) -> None:
    named: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for i in range(MANY):
        plan = product.logical(_rng(2, i))
        assert _values_agree(product, plan)
        rules = _broken_rules(product, plan)
        assert rules[0] == plan.rule, plan
        assert plan.cause
        assert plan.counts[DAMAGE] == 0
        named[rules[0]] += 1
        broken.update(rules)
    assert set(broken) == {rule for rule, text in product.RULES if DAMAGE not in text}
    assert min(named.values()) >= MANY / len(named) / 2


@pytest.mark.parametrize("product", PRODUCTS)
def test_structural_plans_break_the_damage_rule_alone(product: ModuleType) -> None:
    kinds: Counter[str] = Counter()
    for i in range(MANY):
        plan = product.structural(_rng(3, i))
        assert _broken_rules(product, plan) == [plan.rule] == [product.RULES[-1][0]]
        assert plan.cause
        assert plan.counts[DAMAGE] in (1, 2)
        kinds[plan.structural] += 1
    assert set(kinds) == {"scratch", "bent", "dirt", "broken"}


@pytest.mark.parametrize("product", PRODUCTS)
def test_varied_plans_cover_every_value(product: ModuleType) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    damaged = 0
    for i in range(1000):
        plan = product.varied(_rng(4, i))
        assert _values_agree(product, plan)
        assert (plan.rule, plan.cause) == (None, None)
        assert sum(plan.counts.values()) <= 12
        damaged += plan.counts[DAMAGE] > 0
        for name, value in plan.attributes.items():
            seen[name].add(value)
    assert {name: set(values) for name, values in product.ATTRIBUTES.items()} == seen
    assert 100 <= damaged <= 200


@pytest.mark.parametrize("kind", ["normal", "logical", "structural", "varied"])
@pytest.mark.parametrize("product", PRODUCTS)
def test_drawings_show_what_the_plan_says(product: ModuleType, kind: str) -> None:
    for i in range(60):
        rng = _rng(5, i)
        plan = getattr(product, kind)(rng)
        scene = product.draw(rng, plan, LOOKS[i % len(LOOKS)])
        _check_scene(product, plan, scene)
        faulty = plan.rule is not None or plan.counts[DAMAGE] > 0
        assert (scene.fault_mask is not None) == faulty
        if scene.fault_mask is not None:
            assert scene.fault_mask.shape == (BOARD, BOARD)
            assert set(np.unique(scene.fault_mask)) == {0, 255}


@pytest.mark.parametrize("product", PRODUCTS)
def test_damages_are_large_enough_to_be_seen(product: ModuleType) -> None:
    for i in range(80):
        rng = _rng(6, i)
        plan = product.structural(rng)
        scene = product.draw(rng, plan, LOOKS[i % len(LOOKS)])
        assert scene.fault_mask is not None
        for part in scene.parts:
            if part.cls == DAMAGE:
                x0, y0, x1, y1 = part.box
                assert max(x1 - x0, y1 - y0) >= 20
                window = scene.fault_mask[int(y0) : int(y1), int(x0) : int(x1)]
                assert (window > 0).mean() > 0.02


@pytest.mark.parametrize("product", PRODUCTS)
def test_same_seed_draws_the_same_bytes(product: ModuleType) -> None:
    first, second = _rng(7), _rng(7)
    plan = product.varied(first)
    assert plan == product.varied(second)
    look = LOOKS[1]
    one, two = product.draw(first, plan, look), product.draw(second, plan, look)
    assert np.array_equal(one.image, two.image)
    assert one.parts == two.parts


def test_cereal_boundary_lies_at_its_share() -> None:
    for i in range(60):
        rng = _rng(8, i)
        plan = breakfast_box.varied(rng)
        frame = breakfast_box._Frame.pick(rng)
        (_, (_, top, _, level)), *_ = breakfast_box._piles(rng, plan, frame)
        _, y0, _, y1 = frame.box(breakfast_box._RIGHT)
        share = breakfast_box._SHARES[plan.attributes["cereal share"]]
        assert top == y0
        assert abs((level - y0) / (y1 - y0) - share) <= 0.04


def test_short_cables_end_clear_of_the_right_connector() -> None:
    shorts = 0
    for i in range(MANY):
        rng = _rng(9, i)
        plan = splicing_connectors.varied(rng)
        scene = splicing_connectors.draw(rng, plan, LOOKS[i % len(LOOKS)])
        if plan.attributes["cable reach"] != "short":
            continue
        shorts += 1
        right = max(p.box[0] for p in scene.parts if p.cls == "connectors")
        ends = [p.box[2] for p in scene.parts if p.cls == "cables"]
        assert all(right - end >= 45 for end in ends)
    assert shorts > 20
