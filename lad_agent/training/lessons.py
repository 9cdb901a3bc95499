"""What a run learns from: labelled pictures and people's findings, checked as one set."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lad_agent import atomic
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.training import held_out, runs, texts
from lad_agent.training.config import RunConfig
from lad_agent.training.runs import Run
from lad_agent.training.sources import Example, Finding, Shares, check, from_reviews, open_source
from lad_agent.training.texts import Task

Say = Callable[[str], None]

ALL_FOR_TRAINING = Shares(validation=0.0, test=0.0)
"""Findings are rare and dear: each is learned from, and a held-out set of its own is the judge."""


@dataclass(frozen=True)
class Lessons:
    """What a run learns from, a few other pictures that it is asked about on the way, for every
    product a hash of its pictures and labels and one of what is asked of them and known to be in
    them, and those of `examples` that people have reviewed."""

    examples: tuple[Example, ...]
    asked: tuple[Example, ...]
    tasks: Mapping[str, Task]
    hashes: Mapping[str, str]
    task_hashes: Mapping[str, str]

    @property
    def products(self) -> list[str]:
        return sorted({example.product for example in self.examples})

    @property
    def pictures(self) -> int:
        """In the largest prompt: the references that are shown, and the query."""
        return 1 + max(task.references_shown for task in self.tasks.values())

    @property
    def reviews(self) -> list[Example]:
        return [example for example in self.examples if example.by is not None]

    @property
    def learned(self) -> list[str]:
        """The content hashes of `examples`."""
        return sorted({example.sha256 for example in self.examples})


def learn_from(config: RunConfig, findings: Iterable[Finding] = (), say: Say = print) -> Lessons:
    """The lessons in a configuration's data, and in `findings` where it asks for reviews.

    Raises:
        UsageError: no data is named, a path is no source, there is no finding, none under rules
            that hold yet, or findings about one product under two recipes.
        CheckFailed: the data cannot be trained on; names every fault.
    """
    data = config.data
    if not data.paths and not data.reviews:
        raise UsageError("no data to learn from: --data PATH (a folder of pictures)")
    sources = [open_source(path) for path in data.paths]
    if data.reviews:
        # A picture that was reviewed twice is one lesson, of the later finding: two rules may be
        # broken, and each review names one. What contradicts is refused below.
        found: dict[tuple[str | Path, bool], Finding] = {}
        for one in _as_asked_now(findings, say):
            key = one.sha256 or one.image, one.conforming
            found[key] = max(one, found.get(key, one), key=lambda f: f.at)
        if not found:
            raise UsageError("no decided review names a picture to learn from: lad-agent review")
        sources.append(from_reviews(found.values(), ALL_FOR_TRAINING))
    report = check.require(sources, apart=(data.held_out,) if data.held_out else ())
    for warning in report.warnings:
        say(warning)
    examples = tuple(e for e in report.examples if e.split == "train")
    if not examples:
        raise CheckFailed("no picture is for training: none lies in the split train")
    tasks = texts.tasks(report.examples)
    answers = texts.answers(examples, tasks, other_rules=config.sft.texts.other_rules)
    if len(answers) == 1:
        kind = "anomalous" if answers == {True} else "good"
        raise CheckFailed(
            f"all {len(examples)} pictures for training are {kind}, by their labels or by rules "
            "that cannot be changed: the model would learn one answer; add a folder with both"
        )
    if data.held_out is not None:
        held = held_out.pictures(data.held_out)
        held_out.refuse_taught(held, {e.sha256 for e in examples})
    say(f"{len(examples)} pictures to learn from")
    return Lessons(
        examples,
        _asked(report.examples, config),
        tasks,
        runs.data_hashes(report.examples),
        _task_hashes(tasks, report.examples),
    )


def keep_reviews(reviews: Sequence[Example], run: Run) -> None:
    """Write the findings among a run's lessons into its folder, if there are any."""
    if reviews:
        lines = [json.dumps(_line(example), ensure_ascii=False) + "\n" for example in reviews]
        atomic.write(run.reviews, "".join(lines))


def keep_learned(learned: Collection[str], run: Run) -> None:
    """Write the content hashes of a run's lessons into its folder, if there are any: the pictures
    may be moved or deleted once it is trained."""
    if learned:
        atomic.write(run.learned, "".join(f"{sha256}\n" for sha256 in learned))


def kept_reviews(folder: Path) -> list[Finding]:
    """The findings that the run in `folder` learns from: a resumed run keeps to them.

    Raises:
        NotFound: it holds no run.
    """
    return [
        Finding(
            Path(line["image"]),
            line["product"],
            line["finding"] == "conforming",
            line["rule"],
            line["by"],
            datetime.fromisoformat(line["at"]),
            line["sha256"],
            Path(line["recipe"]) if line["recipe"] else None,
            line.get("review"),
            line.get("task_version"),
        )
        for line in runs.read_lines(runs.find_run(folder).reviews)
    ]


def _as_asked_now(findings: Iterable[Finding], say: Say) -> list[Finding]:
    """The findings about parts that were asked what their recipe asks now; those too of which
    nobody has noted it."""
    kept, left_out = list[Finding](), list[Finding]()
    asked: dict[str, dict[str, Path | None]] = {}
    found: dict[tuple[str, Path | None, Path], str | None] = {}
    for one in findings:
        key = one.product, one.recipe, one.image.parent
        if one.task_version is None:
            kept.append(one)
            continue
        if key not in found:
            now = texts.recipe_of(one.product, [one])
            found[key] = now.task_version if now else None
        if found[key] == one.task_version:
            kept.append(one)
            asked.setdefault(one.product, {}).setdefault(one.task_version, one.recipe)
        else:
            left_out.append(one)
    if left_out:
        recipe = left_out[0].recipe
        gone = "" if recipe is None or recipe.is_file() else " (it is gone: put it back)"
        other = f"made under another task than {recipe} asks now{gone}"
        if not kept:
            raise UsageError(
                f"all {len(left_out)} findings were {other}; put the recipe back as it was, or "
                "review parts that are inspected by it"
            )
        say(f"{len(left_out)} findings are left out: {other}")
    for product, recipes in asked.items():
        if len(recipes) > 1:
            raise UsageError(
                f"{product} was reviewed by {' and by '.join(map(str, recipes.values()))}, which "
                "do not ask the same; a model learns one task of a product: move the one away "
                "whose findings are to be left out"
            )
    return kept


def _task_hashes(tasks: Mapping[str, Task], examples: Iterable[Example]) -> dict[str, str]:
    lines = {product: [task.version] for product, task in tasks.items()}
    for example in examples:
        known = example.facts or texts.fault_cells(example, tasks[example.product].region)
        if known:
            lines[example.product].append(f"{example.sha256} {known}")
    return {product: runs.digest(group) for product, group in sorted(lines.items())}


def _line(example: Example) -> dict[str, Any]:
    return {
        "review": example.review,
        "image": str(example.image),
        "sha256": example.sha256,
        "product": example.product,
        "recipe": str(example.recipe) if example.recipe else None,
        "finding": "nonconforming" if example.anomalous else "conforming",
        "rule": example.rule,
        "by": example.by,
        "at": example.at.isoformat() if example.at else None,
        "task_version": example.task_version,
    }


def _asked(examples: Sequence[Example], config: RunConfig) -> tuple[Example, ...]:
    """Pictures for validation if there are any, else for training; good and anomalous by turns."""
    mixed = sorted(examples, key=lambda e: e.sha256)
    others = [e for e in mixed if e.split == "validation"]
    others = others or [e for e in mixed if e.split == "train"]
    pools = [[e for e in others if e.anomalous is side] for side in (False, True)]
    longest = max(map(len, pools))
    turns = [pool[n] for n in range(longest) for pool in pools if n < len(pool)]
    return tuple(turns[: config.samples])
