"""Pictures spoiled for training: what is told of them is what they still show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent import rationale
from lad_agent.training import synloco
from lad_agent.training.pocket import data, spoiling
from lad_agent.training.pocket.spoiling import Shown
from lad_agent.training.synloco.scene import Image as Pixels

EDGE = 98
SEEDS = st.integers(0, 10**6)
PRODUCTS = st.sampled_from(synloco.PRODUCTS)


def _shown(product: str, seed: int) -> Shown:
    photo = synloco.sample(product, 3, seed, "train", EDGE, "normal").photo
    return data.shown(product, photo)


def _board(cell: int) -> Pixels:
    """A chequerboard of cells of so many pixels."""
    down, across = np.mgrid[0:196, 0:196] // cell
    return np.repeat(((down + across) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)


@settings(deadline=None, max_examples=40)
@given(SEEDS, PRODUCTS, st.booleans())
def test_glare_is_beside_the_product_or_hides_a_part_of_it(
    seed: int, product: str, legible: bool
) -> None:
    shown = _shown(product, seed)
    black = np.zeros((EDGE, EDGE, 3), np.uint8)
    lit, judged = spoiling.glare(np.random.default_rng(seed), black, shown, legible)
    at = [np.clip((one * EDGE).astype(int), 0, EDGE - 1) for one in shown.outlines]
    on_parts = [float(lit[points[:, 1], points[:, 0]].mean()) for points in at]
    assert judged == legible
    if legible:
        assert max(on_parts) <= 255 * spoiling.DIM
    else:
        left, below, right, above = (round(hides * EDGE) for hides in shown.hides)
        core = lit[above : EDGE - below, left : EDGE - right]
        assert max([*on_parts, float(core.max(initial=0))]) > 235 * spoiling.BRIGHT - 3


@settings(deadline=None, max_examples=40)
@given(SEEDS, PRODUCTS)
def test_a_camera_that_is_too_near_misses_what_must_be_seen(seed: int, product: str) -> None:
    shown = _shown(product, seed)
    down, across = np.mgrid[0:EDGE, 0:EDGE] * (255 / EDGE)
    places = np.stack([across, down, across], axis=2).astype(np.uint8)
    section, judged = spoiling.too_near(np.random.default_rng(seed), places, shown, False)
    assert not judged
    x, y = section[..., 0] / 255, section[..., 1] / 255
    cut = (x.min(), 1 - y.max(), 1 - x.max(), y.min())
    assert any(gone >= hides - 0.04 for gone, hides in zip(cut, shown.hides, strict=True))


@pytest.mark.parametrize("way", [spoiling.blur, spoiling.few_pixels])
@pytest.mark.parametrize("seed", range(12))
def test_details_are_left_or_are_gone(way: spoiling.Way, seed: int) -> None:
    shown = _shown("pushpins", 0)
    kept, judged = way(np.random.default_rng(seed), _board(9), shown, True)
    assert judged
    assert float(kept.std()) > 80
    for cell in (2, 3):  # as wide as a scratch
        lost, judged = way(np.random.default_rng(seed), _board(cell), shown, False)
        assert not judged
        assert float(lost.std()) < 45


def test_what_cannot_be_spoiled_so_is_left_as_it_is() -> None:
    image = _board(9)
    nowhere = Shown([], (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0))
    for way in (spoiling.glare, spoiling.too_near):
        out, judged = way(np.random.default_rng(0), image, nowhere, False)
        assert judged
        assert np.array_equal(out, image)


def test_what_can_no_longer_be_judged_is_told_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "NOTHING_SHARE", 0.0)
    monkeypatch.setattr(data, "COVERED_SHARES", dict.fromkeys(synloco.PRODUCTS, 0.0))
    monkeypatch.setattr(data, "SPOILED_SHARE", 1.0)
    drawn = [data.picture(5, number) for number in range(80)]
    nothing = [facts.product == rationale.NOTHING for _, _, facts in drawn]
    assert 0.3 < sum(nothing) / len(drawn) < 0.7
    for (pixels, cover, facts), lost in zip(drawn, nothing, strict=True):
        assert pixels.shape == (196, 196, 3)
        assert cover.any() != lost or not any(facts.places.values())
    again = data.picture(5, 7)[0]
    assert np.array_equal(again, drawn[7][0])
