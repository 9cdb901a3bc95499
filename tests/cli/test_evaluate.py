"""`lad-agent evaluate`: tables on the terminal, JSON for scripts, a page for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.training.batch import Batch


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Four parts of which one escapes."""
    batch = Batch(tmp_path, real=True)
    for name, kind, said in (
        ("a", "good", False), ("b", "good", False), ("c", "logical", True), ("d", "logical", False)
    ):  # fmt: skip
        batch.result(batch.picture(name, kind), "NotOK" if said else "OK", said, confidence=0.8)
    batch.write()
    return batch


def test_tables_are_markdown_with_intervals(cli: Cli, batch: Batch) -> None:
    ran = cli("evaluate", batch.results, "--truth", batch.truth, "--bootstrap", 100)
    assert ran.code == 0, ran.err
    assert "| screw_bag | 4 | 0.750 (0.500-1.000) |" in ran.out
    assert "| always no | 4 | 0.500 |" in ran.out
    assert "| confidence | 4 | 1 |" in ran.out
    assert "100 draws, seed 0" in ran.out


def test_json_has_the_same_with_and_without_intervals(cli: Cli, batch: Batch) -> None:
    ran = cli("evaluate", batch.results, "--truth", batch.truth, "--json", "--seed", 5)
    assert ran.json["bootstrap"] == {"draws": 1000, "seed": 5, "level": 0.95}
    assert ran.json["overall"]["intervals"]["balanced_accuracy"] == [0.5, 1.0]
    ran = cli("evaluate", batch.results, "--truth", batch.truth, "--json", "--bootstrap", 0)
    assert ran.json["bootstrap"] is None
    assert "intervals" not in ran.json["overall"]


def test_html_is_written_beside_the_table(cli: Cli, batch: Batch, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    ran = cli("evaluate", batch.results, "--truth", batch.truth, "--html", page)
    assert ran.code == 0, ran.err
    assert "| all | 4 |" in ran.out
    assert 'data-image="screw_bag/test/d.png"' in page.read_text(encoding="utf-8")
    ran = cli("evaluate", batch.results, "--truth", batch.truth, "--html", tmp_path / "no" / "x")
    assert (ran.code, "--html" in ran.error) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name what to evaluate: RESULTS with --truth DIR, or --ablation FOLDER"),
        (("results.jsonl",), "name what to evaluate"),
        (("results.jsonl", "--ablation", "out"), "--ablation judges by itself"),
        (("--ablation", "out"), "an ablation learns and judges: --data PATH and --held-out PATH"),
    ],
)
def test_wrong_use_is_one_line(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    ran = cli("evaluate", *arguments)
    assert (ran.code, words in ran.error) == (2, True)
