"""Runs that teach nothing are stopped, and said why."""

from dataclasses import replace

import pytest

from lad_agent.training.watch import WINDOW, Step, trouble

FINE = Step(well_formed=0.98, truncated=0.02, yes=0.5, dead=0.5)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replace(FINE, yes=1.0), "every answer says yes"),
        (replace(FINE, yes=0.0), "every answer says no"),
        (replace(FINE, truncated=1.0), "raise max_completion"),
        (replace(FINE, well_formed=0.0), "fine-tune first"),
        (replace(FINE, dead=1.0), "the form is learned, but the answers"),
        (replace(FINE, dead=1.0, well_formed=0.6), "choose prompts by difficulty"),
    ],
)
def test_trouble_is_named_after_a_whole_window(bad: Step, words: str) -> None:
    assert words in (trouble([FINE] * 3 + [bad] * WINDOW) or "")
    assert trouble([FINE] * 3 + [bad] * (WINDOW - 1)) is None
    assert trouble([bad] * (WINDOW - 1)) is None
    assert trouble([bad] * WINDOW + [FINE]) is None


def test_a_run_that_learns_is_left_alone() -> None:
    assert trouble([]) is None
    assert trouble([replace(FINE, yes=0.9, dead=0.9)] * 50) is None
