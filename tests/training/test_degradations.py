"""Degradations: nothing at strength 0, more with more, and the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_agent import images
from lad_agent.training.degradations import DEGRADATIONS, degraded
from tests.scripted import part

PICTURE = part("tray", 3, size=120)
NAMES = st.sampled_from(sorted(DEGRADATIONS))


def _distance(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_from_the_picture_itself_to_another_one(name: str) -> None:
    assert np.array_equal(degraded(PICTURE, name, 0.0), PICTURE)
    steps = [_distance(PICTURE, degraded(PICTURE, name, s, 1)) for s in (0.0, 0.3, 0.6, 1.0)]
    assert steps == sorted(steps)
    assert steps[-1] > 8


@settings(deadline=None, max_examples=40)
@given(name=NAMES, strength=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_size_and_mode_stay_and_the_seed_decides(name: str, strength: float, seed: int) -> None:
    first = degraded(PICTURE, name, strength, seed)
    assert (first.size, first.mode) == (PICTURE.size, "RGB")
    assert np.array_equal(first, degraded(PICTURE, name, strength, seed))


def test_by_hand() -> None:
    assert np.array_equal(degraded(PICTURE, "mirrored", 1), np.asarray(PICTURE)[:, ::-1])
    assert not np.asarray(degraded(PICTURE, "darkness", 1)).any()
    assert np.asarray(degraded(PICTURE, "darkness", 0.5)).max() == 100
    hidden = np.asarray(degraded(PICTURE, "occlusion", 0.25, 2))
    assert (hidden == 90).all((0, 2)).sum() == 30


@pytest.mark.parametrize("name", ["blur", "darkness", "glare", "occlusion"])
def test_at_the_end_the_gate_sees_it(name: str) -> None:
    assert images.gate(degraded(PICTURE, name, 1), 200) is not None


def test_unknown_names_and_strengths_are_refused() -> None:
    with pytest.raises(ValueError, match="no degradation 'fog'; known: blur, "):
        degraded(PICTURE, "fog", 0.5)
    with pytest.raises(ValueError, match="not within 0 and 1"):
        degraded(PICTURE, "blur", 1.5)
