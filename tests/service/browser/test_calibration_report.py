"""The calibration's page in a browser: its thresholds move, and the parts are counted anew."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from lad_agent import recipe
from lad_agent.judgement import Result
from lad_agent.policy import decide
from lad_agent.training.calibration import Asked, choose
from lad_agent.training.calibration.report import page
from tests.scripted import write_recipe
from tests.training.calibration.synthetic import parts


def test_the_sliders_count_the_parts_as_the_policy_would(browser: Browser, tmp_path: Path) -> None:
    made = choose(parts(120, 120), recipe.load(write_recipe(tmp_path)), Asked(0.1, 0.1))
    file = tmp_path / "report.html"
    file.write_text(page(made), encoding="utf-8")
    context = browser.new_context()
    opened = context.new_page()
    failed: list[str] = []
    opened.on("pageerror", lambda error: failed.append(str(error)))
    opened.goto(file.as_uri())

    def shown(what: str) -> int:
        return int(opened.locator(f"#{what}").inner_text())

    def moved(slider: str, to: int) -> float | None:
        opened.locator(f"#{slider}").evaluate(
            "(at, to) => { at.value = to; at.dispatchEvent(new Event('input')); }", to
        )
        told = opened.locator(f"#{slider}-at").inner_text()
        return None if told == "never" else float(told)

    assert shown("good-OK") == made.count(bad=False, result=Result.OK)
    assert shown("bad-people") == made.count(bad=True, result=Result.NOT_DECIDABLE)
    last = int(opened.locator("#pass").get_attribute("max") or 0)
    for place in (0, last // 2, last - 1):
        level = moved("pass", place)
        assert level is not None
        # Told with six digits: the policy gets the level a hair lower.
        policy = made.policy.model_copy(update={"pass_confidence": level * (1 - 1e-5)})
        results = [(p.bad, decide(p.judgement, policy).result) for p in made.parts]
        for who, bad in (("good", False), ("bad", True)):
            assert shown(f"{who}-OK") == results.count((bad, Result.OK))
            assert shown(f"{who}-people") == results.count((bad, Result.NOT_DECIDABLE))
    assert moved("pass", last) is None
    assert (shown("good-OK"), shown("bad-OK")) == (0, 0)
    assert failed == []
    context.close()


def test_the_sliders_begin_at_the_recipes_own_thresholds(browser: Browser, tmp_path: Path) -> None:
    made = choose(parts(120, 120), recipe.load(write_recipe(tmp_path)), Asked(0.1))
    file = tmp_path / "report.html"
    file.write_text(page(made), encoding="utf-8")
    # Nothing is promised of overkill: that threshold is none of the parts' confidences.
    assert made.policy.reject_confidence is None
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(file.as_uri())
    for slider, anomalous in (("pass", False), ("reject", True)):
        told = opened.locator(f"#{slider}-at").inner_text()
        assert float(told) == pytest.approx(made.policy.least_confidence(anomalous), rel=1e-5)
    context.close()
