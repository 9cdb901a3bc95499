"""The page: everything in it, nothing fetched, thresholds that match the recipe's."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lad_agent import recipe
from lad_agent.errors import UsageError
from lad_agent.training.calibration import Asked, Costs, Made, choose, report
from lad_agent.training.calibration.report import page, write_pngs
from lad_agent.training.evaluation import plots
from tests.scripted import write_recipe
from tests.training.calibration.synthetic import parts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    loaded = recipe.load(write_recipe(tmp_path_factory.mktemp("recipe")))
    return choose(parts(120, 120), loaded, Asked(0.1, 0.1))


def test_the_page_needs_nothing_else_and_holds_every_part(made: Made) -> None:
    text = page(replace(made, costs=Costs(100, 10, 1, 0.1)))
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "promise: at most 10.0% escapes, 95% sure; at most 10.0% overkill, 95% sure" in text
    for title in (
        "ROC of", "Reliability of", "Risk at", "Confidence by truth", "Passed by threshold",
        "Cost a part", "Cost curve",
    ):  # fmt: skip
        assert f'aria-label="{title}' in text
    data = json.loads(re.search(r'id="parts">(.*)</script>', text)[1])  # type: ignore[index]
    assert len(data["parts"]) == len(made.parts)
    assert data["pass"] == made.changes["pass_confidence"]
    passed = sum(s == "OK" and sure >= data["pass"] for s, _, sure in data["parts"])
    assert passed == sum(result == "OK" for result in made.results)


def test_confidence_is_drawn_by_truth_for_each_verdict(made: Made) -> None:
    said_good, said_bad = report.charts(made)[:2]
    assert isinstance(said_good, plots.Mirrored)
    assert isinstance(said_bad, plots.Mirrored)
    for chart, verdict in ((said_good, False), (said_bad, True)):
        mine = [p for p in made.parts if p.judgement.anomalous is verdict]
        good, bad = sum(not p.bad for p in mine), sum(p.bad for p in mine)
        assert (chart.up[0], chart.down[0]) == (f"good parts ({good})", f"bad parts ({bad})")
        assert (sum(chart.up[1]), sum(chart.down[1])) == (good, bad)


def test_the_cost_curve_ends_at_both_mistakes(made: Made) -> None:
    [curve] = [c for c in report.charts(made) if c.title == "Cost curve"]
    assert isinstance(curve, plots.Curves)
    decided, passed, rejected = (tuple(line.y) for line in curve.lines)
    count = made.calibration.chosen_on
    overkill = sum(
        not p.bad and r == "NotOK" for p, r in zip(made.parts, made.results, strict=True)
    )
    missed = sum(p.bad and r == "OK" for p, r in zip(made.parts, made.results, strict=True))
    assert decided == (overkill / count.good, missed / count.bad)
    assert (passed, rejected) == ((0, 1), (1, 0))


def test_what_passes_is_drawn_over_the_verdicts_that_a_threshold_leaves_to_people(
    made: Made,
) -> None:
    """Over these, not over the confidence: a learned one may say nearly the same of all."""
    [chart] = [c for c in report.charts(made) if c.title == "Passed by threshold"]
    assert isinstance(chart, plots.Curves)
    sure = [(p.judgement.confidence or 0.0, p.bad) for p in made.parts if not p.judgement.anomalous]
    count = made.calibration.chosen_on
    for line, bad, of in zip(chart.lines, (False, True), (count.good, count.bad), strict=True):
        assert line.x[0] == 0
        assert len(line.x) == len({s for s, _ in sure})
        for level, x, y in zip(sorted({s for s, _ in sure}), line.x, line.y, strict=True):
            assert x == pytest.approx(sum(s < level for s, _ in sure) / len(sure))
            assert y == pytest.approx(sum(s >= level and b == bad for s, b in sure) / of)


def test_every_chart_of_the_page_is_a_png_too(made: Made, tmp_path: Path) -> None:
    priced = replace(made, costs=Costs(100, 10, 1, 0.1))
    written = write_pngs(priced, tmp_path / "charts")
    assert len(written) == len(set(written)) == page(priced).count("<figure>")
    for path in written:
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("PNG", (900, 750))
    with pytest.raises(UsageError, match="cannot be written"):
        write_pngs(made, written[0] / "below-a-file")


def test_words_from_outside_are_escaped(made: Made) -> None:
    named = replace(
        made, calibration=made.calibration.model_copy(update={"model": "<script>alert(1)"})
    )
    assert "<script>alert" not in page(named)


def test_a_picture_that_has_gone_is_named(made: Made) -> None:
    assert Path(made.parts[0].example.image).suffix == ".png"
    assert "no such file; check the path" in page(made)
