"""Findings of decided reviews as labels: what a person found, never what became of the part."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lad_agent.training.sources.example import Example, Fault, Shares, labelled

LAYOUT = "reviews"


@dataclass(frozen=True)
class Finding:
    """What a person found in one picture; `rule` is the one that broke, where nonconforming.

    `sha256` is that of the picture when it was inspected, and `recipe` the file that it was
    inspected by, where they are known; `review` is its id in the audit store. `task_version` is
    that of the recipe then.
    """

    image: Path
    product: str
    conforming: bool
    rule: str | None
    by: str
    at: datetime
    sha256: str | None = None
    recipe: Path | None = None
    review: str | None = None
    task_version: str | None = None


def read(findings: Iterable[Finding], shares: Shares) -> Iterator[Example | Fault]:
    """An example for each finding, split by its content."""
    for finding in findings:
        yield _example(finding, shares)


def _example(finding: Finding, shares: Shares) -> Example | Fault:
    found = labelled(
        finding.image, finding.product, shares, "good" if finding.conforming else "bad",
        rule=finding.rule, by=finding.by, at=finding.at, recipe=finding.recipe,
        review=finding.review, task_version=finding.task_version,
    )  # fmt: skip
    if isinstance(found, Example) and finding.sha256 not in (None, found.sha256):
        return Fault(
            f"{finding.image}: has changed since {finding.by} reviewed it; put the picture back"
        )
    return found
