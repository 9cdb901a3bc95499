"""The HTML report, parsed: every mistake is in it, and nothing of it lies elsewhere."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lad_agent.errors import UsageError
from lad_agent.training import evaluation
from lad_agent.training.evaluation import report
from tests.training.batch import Batch

VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a page holds: open tags must be closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.articles: dict[str, str] = {}
        self.sources: list[str] = []
        self.links: list[str] = []
        self.charts = 0
        self._open: list[str] = []
        self._article = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self._open.append(tag)
        self.charts += tag == "svg"
        self.sources += [values["src"]] if "src" in values else []
        self.links += [v for k, v in values.items() if k in ("href", "xlink:href", "action")]
        assert tag not in ("script", "link", "iframe", "object")
        if tag == "article":
            self._article = values["data-image"]
            self.articles[self._article] = ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "article" in self._open:
            self.articles[self._article] += data


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Real pictures: two right, one escape, one overkill, one wrong that went to a person."""
    batch = Batch(tmp_path, real=True)
    for name, kind, result, said, score in (
        ("right", "good", "OK", False, 0.1), ("found", "logical", "NotOK", True, 0.9),
        ("doubted", "structural", "NotDecidable", False, 0.05),
        ("alarm", "good", "NotOK", True, 0.99),
        ("slight", "logical", "OK", False, 0.4), ("escape", "logical", "OK", False, 0.2),
    ):  # fmt: skip
        batch.result(
            batch.picture(name, kind, rule=None if kind == "good" else "R1"), result, said,
            decision_score=score, anomaly_score=score, confidence=0.8, weakest_token=0.7,
            rule="R2" if said else None, rationale=f"R1 <b>{name}</b> & more",
        )  # fmt: skip
    batch.write()
    return batch


def _page(batch: Batch) -> tuple[str, evaluation.Joined]:
    joined = evaluation.join(batch.results, batch.truth)
    figures = evaluation.figures_of(joined, evaluation.Resampling(20))
    return evaluation.page(joined.judged, figures, "results <1>"), joined


def test_every_mistake_is_shown_with_its_reasons_worst_first(batch: Batch) -> None:
    text, joined = _page(batch)
    page = Page(text)
    wrong = {"/".join(j.truth.image.parts[-3:]) for j in joined.judged if not j.right}
    assert set(page.articles) == wrong
    names = [Path(name).stem for name in page.articles]
    assert names == ["escape", "slight", "alarm", "doubted"]
    for name, words in zip(names, page.articles.values(), strict=True):
        assert f"R1 <b>{name}</b> & more" in words
    alarm = page.articles["screw_bag/test/alarm.png"]
    assert "rejected: anomalous (rule R2); in truth good" in alarm
    assert "in truth logical, R1" in page.articles["screw_bag/test/escape.png"]


def test_pictures_are_embedded_and_nothing_is_fetched(batch: Batch) -> None:
    text, _ = _page(batch)
    page = Page(text)
    assert len(page.sources) == 4
    for source in page.sources:
        head, data = source.split(",", 1)
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (224, 149)
    assert page.links == []
    assert "http" not in text
    assert "url(" not in text
    assert page.charts == 4


def test_tables_and_notes_are_those_of_the_terminal(batch: Batch) -> None:
    text, _ = _page(batch)
    words = Page(text).words
    assert "results <1>" in words
    for word in ("bal. acc.", "always no", "weakest_token", "knows its errors"):
        assert word in words
    assert any("20 draws" in word for word in words)
    assert any("Wrong verdicts: 4 of 6" in word for word in words)


def test_a_picture_that_cannot_be_shown_is_named(batch: Batch) -> None:
    joined = evaluation.join(batch.results, batch.truth)
    (batch.truth / "screw_bag" / "test" / "escape.png").write_bytes(b"gone")
    page = Page(evaluation.page(joined.judged, evaluation.figures_of(joined), "r"))
    assert "escape.png: not an image" in page.articles["screw_bag/test/escape.png"]
    assert len(page.sources) == 3


def test_one_good_part_makes_a_page(tmp_path: Path) -> None:
    batch = Batch(tmp_path, real=True)
    batch.result(batch.picture("only"), "NotDecidable", None)
    batch.write()
    text, _ = _page(batch)
    page = Page(text)
    assert list(page.articles) == ["screw_bag/test/only.png"]
    assert "no verdict" in page.articles["screw_bag/test/only.png"]
    assert page.charts == 1


def test_a_page_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    report.write(tmp_path / "r.html", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(UsageError, match=r"--html .*none.r\.html: cannot be written"):
        report.write(tmp_path / "none" / "r.html", "text")
