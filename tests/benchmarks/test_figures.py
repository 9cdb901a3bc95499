"""The tables of the pocket's figures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from benchmarks import figures
from lad_agent.training import synloco
from lad_agent.training.evaluation import Judged, Truth


def test_the_cause_named_stands_last_in_the_main_table() -> None:
    judged = []
    for number, product in enumerate(synloco.PRODUCTS):
        judged += [_judged(product, "good", None), _judged(product, "structural", "R9")]
        # Of four logical faults as many are named as the product's place.
        judged += [_judged(product, "logical", "R1" if n < number else "R2") for n in range(4)]
    head, _, *rows = _table(judged)
    names = [name.strip() for name in head.strip("|").split("|")]
    assert names[0] == "product"
    assert names[-2:] == ["always", "cause named"]
    told = {}
    for row in rows[: 1 + len(synloco.PRODUCTS)]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == len(names)
        told[cells[0]] = cells[-1]
    named = {product: (1 + n) / 5 for n, product in enumerate(synloco.PRODUCTS)}
    assert told == {"all": "0.600"} | {product: f"{share:.3f}" for product, share in named.items()}


def test_no_cause_is_named_where_no_fault_was_seen() -> None:
    found = [_judged(product, kind, None) for product in synloco.PRODUCTS for kind in _KINDS]
    _, _, row, *_ = _table([replace(one, anomalous=False) for one in found])
    assert row.endswith("| none |")


def test_documents_get_the_tables_of_the_same_heading() -> None:
    text = (
        "a | b\n\n| x | y |\n|---|---|\n| o | 1 |\n| o | 2 |\nEvidence check: 1.\n\n| z |\n|--|\n"
    )
    told = "| x | y |\n|---|---|\n| new | 3 |\n\nEvidence check: 2.\n\n| elsewhere |\n|---|"
    assert figures.retold(text, told) == (
        "a | b\n\n| x | y |\n|---|---|\n| new | 3 |\nEvidence check: 2.\n\n| z |\n|--|\n"
    )
    assert figures.homeless([text], told) == ["| elsewhere |"]
    assert figures.homeless([text, "| elsewhere |\n|---|\n| o |\n"], told) == []


def test_every_table_of_the_figures_stands_in_a_document() -> None:
    judged = [_judged(product, kind, None) for product in synloco.PRODUCTS for kind in _KINDS]
    root = Path(figures.__file__).parents[1]
    texts = [(root / name).read_text(encoding="utf-8") for name in figures.DOCUMENTS]
    assert figures.homeless(texts, "\n".join(_table(judged))) == []


_KINDS: tuple[Literal["good", "logical", "structural"], ...] = ("good", "logical", "structural")


def _table(judged: Sequence[Judged]) -> list[str]:
    figure = figures.grouped(judged)
    nothing: dict[str, Any] = {
        name: {} for name in ("looks", "rule_difference", "listing", "other_pictures")
    }
    base = dict.fromkeys(("object_head", "blobs", "always_no"), figure)
    told = {"pocket": figure, "held_out": figure, "strata": {}, "baselines": base, **nothing}
    return figures.markdown(told).splitlines()


def _judged(
    product: str, kind: Literal["good", "logical", "structural"], rule: str | None
) -> Judged:
    """A right verdict, about a part whose fault is of R1, or of R9 where it is structural."""
    bad = kind != "good"
    true = {"good": None, "logical": "R1", "structural": "R9"}[kind]
    truth = Truth(product, bad, kind, true, "in-range", 0, Path())
    return Judged(truth, bad, float(bad), "NotOK" if bad else "OK", rule, True, "consistent")
