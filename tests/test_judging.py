"""What a judgement depends on beside recipe and model, each part by what it does.

Where one of these fails, raise `recipe.JUDGING`: what was calibrated, inspected or found before
means another thing now.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lad_agent import confidence, images, protocol, rationale, recipe
from lad_agent.judgement import Judgement
from lad_agent.recipe import JUDGING, Recipe, Region, Rule, recorded_version
from lad_agent.store import AuditStore, open_store
from tests.scripted import write_recipe
from tests.store.samples import intake

RULES = (Rule(id="R1", text="exactly 2 washers"), Rule(id="R2", text="icon fits liquid: a for b"))


@pytest.fixture
def loaded(tmp_path: Path) -> Recipe:
    return recipe.load(write_recipe(tmp_path))


def test_another_version_makes_every_recipe_another_task(
    loaded: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "JUDGING", JUDGING + 1)
    now = recipe.load(loaded.path)
    assert now.task_version != loaded.task_version
    assert now.recipe_version != loaded.recipe_version


def test_of_the_first_version_tasks_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that were hashed before there was a version are the same still."""
    monkeypatch.setattr(recipe, "JUDGING", 1)
    assert recipe.judging() == {}


def test_what_a_recipe_said_is_recorded_with_its_version(
    loaded: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipe, "JUDGING", JUDGING + 1)
    now = recipe.load(loaded.path)
    with open_store(tmp_path / "audit.db") as store:
        content = _seen(store, now)
        assert content["judging"] == JUDGING + 1
        assert recorded_version(now.product, content) == now.recipe_version


def test_what_a_recipe_said_is_recorded_though_its_file_says_another_thing_by_then(
    loaded: Recipe, tmp_path: Path
) -> None:
    """`calibrate` may rewrite a recipe between the start of a station and its first part."""
    loaded.path.write_text(loaded.path.read_text().replace("2 washers", "3 washers"))
    with open_store(tmp_path / "audit.db") as store:
        content = _seen(store, loaded)
        assert content["rules"][0]["text"] == "exactly 2 washers"
        assert recorded_version(loaded.product, content) == loaded.recipe_version


def _seen(store: AuditStore, task: Recipe) -> dict[str, Any]:
    opened = store.take_in(
        intake(
            "one", recipe_version=task.recipe_version, task_version=task.task_version,
            recipe_path=str(task.path), product=task.product,
        )
    )  # fmt: skip
    said = store.history(opened.id).recipe
    assert said is not None
    return dict(said)


def test_pictures_are_prepared_as_ever() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(7, 0).repeat(7, 1)
    picture = images.prepare(Image.fromarray(coarse), Region(left=0.25, bottom=0.9), 56)
    assert picture.size == (56, 56)
    thumb = np.asarray(picture, dtype=np.float64)[::14, ::14, 0]
    bicubic = [57, 123, 152, 227, 56, 101, 62, 100, 116, 186, 151, 93, 24, 189, 79, 69]
    assert thumb.ravel().tolist() == pytest.approx(bicubic, abs=1)


def test_the_gate_stops_what_it_ever_did() -> None:
    limits = (images.MIN_SIDE_SHARE, images.MIN_BRIGHT, images.MAX_DARK, images.MIN_EDGES)
    assert limits == (0.5, 45.0, 225.0, 18.0)
    assert (images.MIN_CORRELATION, images.MAX_NOISE) == (0.55, 20.0)
    rng = np.random.default_rng(0)
    tiles = rng.integers(60, 200, (14, 14, 3)).repeat(14, 0).repeat(14, 1)
    shown: list[tuple[int, Any]] = [
        *((196, np.full((196, 196, 3), grey)) for grey in (40, 80, 240)),
        (196, rng.integers(0, 256, (196, 196, 3))),
        (97, tiles),
        (98, tiles),
    ]
    pictures = [(Image.fromarray(pixels.astype(np.uint8)), side) for side, pixels in shown]
    assert [images.gate(picture, side) for picture, side in pictures] == [
        "too-dark", "blurred", "too-bright", "noise", "too-small", None,
    ]  # fmt: skip
    assert images.headroom(pictures[-1][0]) == pytest.approx(0.662, abs=0.005)


def test_the_prompt_says_what_it_ever_did() -> None:
    asked = json.dumps(protocol.messages("screw_bag", RULES, references=2), sort_keys=True)
    assert hashlib.sha256(asked.encode()).hexdigest()[:16] == "2c0fa6f9fd1d9d49"


@pytest.mark.parametrize(
    ("answer", "anomalous"),
    [
        ("<think>R1</think><answer>yes</answer>", True),
        (" <THINK>R1</THINK>\n<answer> No </answer> ", False),
        ("<think>R1</think><answer>maybe</answer>", None),
        ("<think>R1</think><answer>no</answer> indeed", None),
        ("<think>R1</think><think>R2</think><answer>no</answer>", None),
        ("<answer>no</answer>", None),
    ],
)
def test_answers_are_read_as_ever(answer: str, anomalous: bool | None) -> None:
    found = protocol.parse(answer)
    assert (found.anomalous if found else None) is anomalous


def test_what_evidence_contradicts_has_half_the_confidence_as_ever() -> None:
    said = Judgement(
        anomalous=True, weakest_token=0.8, samples=3, agreement=2 / 3, evidence="contradicted",
        well_formed=True, model="m",
    )  # fmt: skip
    assert confidence.raw(said) == pytest.approx((0.8 + 2) / 4 / 2)


@pytest.mark.parametrize(
    ("washers", "anomalous", "evidence"),
    [
        ("R1 washers at A1, B2: 2 of 2 ok", False, "consistent"),
        ("R1 washers at A1, B2: 2 of 2 ok", True, "contradicted"),
        ("R1 washers at A1: 2 of 2 ok", False, "contradicted"),
        ("R1 washers at A1: 1 of 2 bad", True, "consistent"),
        ("R1 washers at A1: 1 of 1 ok", False, "contradicted"),
        ("R3 washers at A1, B2: 2 of 2 ok", False, "contradicted"),
        ("two washers, as it should be", False, "unchecked"),
    ],
)
def test_evidence_is_held_against_the_verdict_as_ever(
    washers: str, anomalous: bool, evidence: str
) -> None:
    text = f"product: screw bag of screw bag ok; {washers}"
    assert rationale.check_evidence(text, anomalous, "screw_bag", RULES[:1])[0] == evidence


def test_another_product_is_seen_as_ever() -> None:
    assert rationale.seen_product("product: pushpins of screw bag bad") == "pushpins"
    assert rationale.seen_product("product: screw bag of screw bag ok") is None


def test_features_mean_what_they_ever_did() -> None:
    said = Judgement(
        anomalous=True, anomaly_score=0.8, confidence=0.9, weakest_token=0.9, mean_logprob=-0.01,
        sum_logprob=-0.3, samples=4, agreement=0.75, evidence="consistent", image_quality=0.5,
        well_formed=True, model="m",
    )  # fmt: skip
    found = dict(zip(confidence.FEATURES, confidence.features(said) or (), strict=True))
    told = {
        "raw_confidence": 1.2657, "weakest_token": 2.1972, "mean_logprob": 4.6002,
        "sum_logprob": 1.0502, "margin": 0.6, "agreement": 0.75, "decided_at_once": 0.0,
        "evidence_consistent": 1.0, "image_quality": 0.5, "says_anomalous": 1.0,
    }  # fmt: skip
    assert found == pytest.approx(told, abs=1e-4)
