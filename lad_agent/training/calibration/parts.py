"""The labelled parts of a calibration: results of `lad-agent inspect` beside their truth."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lad_agent import images, rationale
from lad_agent.errors import CheckFailed, LadAgentError, ModelError, NotFound, UsageError
from lad_agent.judgement import FAILURES, Judgement
from lad_agent.recipe import Recipe
from lad_agent.training import runs
from lad_agent.training.evaluation import jsonl
from lad_agent.training.sources import Example, open_source
from lad_agent.training.sources.check import unread
from lad_agent.training.sources.folder import LAYOUT as OWN

UNJUDGED = "not judged, because of a time-out or a failure"

_SHOWN = 3


@dataclass(frozen=True)
class Part:
    """One labelled picture and what the reasoner said about it."""

    example: Example
    judgement: Judgement

    @property
    def bad(self) -> bool:
        return self.example.anomalous

    @property
    def right(self) -> bool:
        """Whether the verdict is the truth; no verdict is wrong."""
        return self.judgement.anomalous == self.bad


@dataclass(frozen=True)
class Line:
    """A part as a line of results tells it; `age` sorts the lines about one picture, and `failed`
    tells of something broken, and of no judgement."""

    part_id: str
    age: tuple[int, str]
    part: Part
    failed: bool


def labelled(path: Path, product: str) -> tuple[list[Example], int]:
    """The pictures of `product` at `path` that may calibrate, each content once.

    Where the layout keeps pictures for training apart, these are left out: how many comes second.
    Own pictures are all of the split test: nothing says that a training took its share. Without a
    recipe beside them they are of `product`, whatever their folder is called.

    Raises:
        UsageError: no layout that is known, no picture of the product, labels that contradict, or
            pictures in folders that the layout does not read.
        UnreadableInput: a picture cannot be read.
    """
    source = open_source(path, unnamed=product)
    beside = [f"{folder}" for folder in unread(source)]
    if beside:
        raise UsageError(
            f"{', '.join(beside)}: pictures there are not read as {source.layout}, and would not "
            "count; give the whole of a data set, put own pictures into good and bad, or take them "
            f"out of {path}"
        )
    found = list(source)
    mine = [e for e in found if e.product == product]
    if not mine:
        names = ", ".join(sorted({e.product for e in found})) or "nothing"
        raise UsageError(
            f"{path}: no picture of {product}; there is {names}; "
            f"give those of {product}, or the recipe of these"
        )
    once = _once(mine, path)
    if source.layout == OWN:
        return [replace(e, split="test") for e in once], 0
    kept = [e for e in once if e.split != "train"]
    return kept, len(once) - len(kept)


@dataclass(frozen=True)
class Taught:
    """What a training knows of pictures, by content hash: those it has learned from, and those for
    validation. `held_out` is what it was judged by; `changed`: its pictures are others now, and it
    has kept no list of those that it has learned from; `gone`: the folder of the run that made its
    base, where that is no longer there."""

    of: Path
    learned: frozenset[str]
    validation: frozenset[str] = frozenset()
    held_out: Path | None = None
    changed: bool = False
    gone: Path | None = None


def taught(path: Path) -> list[Taught]:
    """What a run of `lad-agent train` and those that it went on from have seen, or a training on
    the labelled pictures at `path`.

    A run in stages, and GRPO without data, learn from pictures that are made. The run that made a
    base is the one that `run.json` names, as long as its result is that very base.

    Raises:
        UsageError: `path` is neither; or pictures that a run names are no longer there.
    """
    try:
        run = runs.find(path)
    except NotFound:
        learned = frozenset(e.sha256 for e in open_source(path) if e.split == "train")
        return [Taught(path, learned)]
    found: list[Taught] = []
    while True:
        found.append(_taught(run) if isinstance(run, runs.Run) else Taught(run.folder, frozenset()))
        base = runs.recorded_base(run)
        if base is None or base.made_by is None:
            return found
        earlier = _maker(base.made_by, base.fingerprint)
        if earlier is None:
            return [*found[:-1], replace(found[-1], gone=base.made_by)]
        run = earlier


def _maker(folder: Path, fingerprint: str) -> runs.AnyRun | None:
    """The run in `folder`, if its result still has this fingerprint."""
    from lad_agent.training import bases  # with torch, which takes seconds to load

    try:
        return runs.find(folder) if bases.find(str(folder)).fingerprint == fingerprint else None
    except (NotFound, UsageError, ModelError):
        return None


def _taught(run: runs.Run) -> Taught:
    data, reviewed = run.config.data, runs.read_lines(run.reviews)
    listed = run.learned.exists()
    try:
        seen = [e for source in data.paths for e in open_source(source)]
    except LadAgentError:
        if not listed:
            raise
        seen = []  # moved or deleted: what it has learned from is listed
    now = runs.data_hashes(seen)
    return Taught(
        run.folder,
        frozenset(run.learned.read_text(encoding="utf-8").split())
        if listed
        else frozenset(e.sha256 for e in seen if e.split == "train")
        | {line["sha256"] for line in reviewed},
        frozenset(e.sha256 for e in seen if e.split == "validation"),
        data.held_out,
        changed=not listed
        and not data.reviews
        and any(now.get(product) != told for product, told in runs.recorded_data(run).items()),
    )


def trained_on(path: Path) -> frozenset[str]:
    """Content hashes of the pictures that a training learned from; `path` as for `taught`."""
    return learned(taught(path))


def learned(known: Iterable[Taught]) -> frozenset[str]:
    """Content hashes of the pictures that any of them has learned from."""
    return frozenset[str]().union(*(one.learned for one in known))


def doubts(known: Taught, examples: Iterable[Example]) -> list[str]:
    """What of a training does not forbid these pictures, but must be known to a reader."""
    held = open_source(known.held_out) if known.held_out is not None else ()
    judged_by = known.validation | {e.sha256 for e in held}
    notes = []
    if shared := sum(e.sha256 in judged_by for e in examples):
        notes.append(
            f"in-sample: {shared} pictures are those that {known.of} was judged by while it was "
            "made"
        )
    if known.gone is not None:
        notes.append(
            f"{known.gone}, which made the base of {known.of}, is gone; what it learned from was "
            "not looked for among these"
        )
    if known.changed:
        notes.append(
            f"the pictures of {known.of} have changed since it learned from them; what is gone "
            "from them was not looked for among these"
        )
    return notes


def refuse_trained_on(examples: Iterable[Example], trained: frozenset[str]) -> None:
    """Refuse parts that the reasoner has learned from.

    Raises:
        CheckFailed: names some of them.
    """
    shared = [e for e in examples if e.sha256 in trained]
    if shared:
        raise CheckFailed(
            f"{len(shared)} pictures were used in training, such as "
            f"{_names(shared)}; calibrate on others: a model knows its lessons by heart"
        )


def of_results(
    results: Path, examples: Iterable[Example], recipe: Recipe
) -> tuple[list[Part], list[str]]:
    """The lines of `results` (a results.jsonl) that are about these pictures and this recipe, and
    in words what was left out of them.

    Of several lines about one picture the last attempt counts, of several pictures of one part the
    last one: a part that was photographed ten times is one part. A picture that was not judged,
    because of a time-out or a failure, says nothing of what passes once all works.

    Raises:
        UsageError: a line is not of its form, or was judged for another task, by other draws or by
            several models; or there is none.
    """
    known = {e.sha256: e for e in examples}
    last: dict[str, Line] = {}
    not_judged: set[str] = set()
    for line in jsonl.read(results, partial(part_of, known=known, recipe=recipe)):
        if line is None:
            continue
        sha256 = line.part.example.sha256
        if line.failed:
            not_judged.add(sha256)
        elif sha256 not in last or line.age >= last[sha256].age:
            last[sha256] = line
    parts, notes = one_of_each(last.values())
    if not parts and not_judged:
        raise UsageError(f"{results}: all of its pictures were {UNJUDGED}; inspect again")
    if not parts:
        raise UsageError(
            f"{results}: no line is about a labelled picture of {recipe.product}; check --truth"
        )
    models = sorted({part.judgement.model for part in parts})
    if len(models) > 1:
        raise UsageError(f"{results}: judged by {' and '.join(models)}; give results of one model")
    lost = [known[sha256] for sha256 in not_judged - last.keys()]
    return parts, [*notes, *left_unjudged(lost, parts)]


def left_unjudged(lost: Sequence[Example], parts: Iterable[Part]) -> list[str]:
    """A note of how many pictures a time-out or a failure has left without a judgement.

    Raises:
        CheckFailed: all bad parts are among them. Good ones alone would calibrate then, as where
            nobody has any bad ones.
    """
    bad = sum(example.anomalous for example in lost)
    if bad and not any(part.bad for part in parts):
        raise CheckFailed(
            f"none of the {bad} bad parts was judged: time-outs or failures; try again"
        )
    return [f"{len(lost)} parts that were {UNJUDGED}"] if lost else []


def one_of_each(lines: Collection[Line]) -> tuple[list[Part], list[str]]:
    """The last picture of every part, by content, and in words how many others there were.

    A promise counts parts: ten pictures of one are no ten independent ones. A `part_id` that is a
    file's name tells no part from another, and a part that was reworked is one of each class.
    """
    last: dict[tuple[str, bool], Line] = {}
    for line in sorted(lines, key=lambda line: line.age[1]):
        named = not line.part_id.lower().endswith(images.SUFFIXES)
        last[line.part_id if named else line.part.example.sha256, line.part.bad] = line
    more = len(lines) - len(last)
    notes = [f"{more} earlier pictures of parts that were photographed again"] if more else []
    return sorted((one.part for one in last.values()), key=lambda part: part.example.sha256), notes


def part_of(
    entry: Mapping[str, Any], *, known: Mapping[str, Example], recipe: Recipe
) -> Line | None:
    """The part of one line of results, `known` by content; None where it is about another.

    Raises:
        ValueError: it was judged for another task, by other draws, or is not of its form.
        KeyError: a field is missing.
    """
    example = known.get(entry["image_sha256"] or "")
    if example is None or entry["product"] != recipe.product:
        return None
    if entry["task_version"] != recipe.task_version:
        raise ValueError(
            f"judged for task {entry['task_version']}, the recipe is {recipe.task_version}; "
            "inspect again"
        )
    told = {name: entry[name] for name in Judgement.model_fields if name in entry}
    told["seen_product"] = rationale.seen_product(entry["rationale"])
    judgement = _judgement(told)
    policy, weakest = recipe.policy, judgement.weakest_token
    for name in ("mean_logprob", "image_quality"):
        if weakest is not None and getattr(judgement, name) is None:
            raise ValueError(f"has no {name}: judged by an older version; inspect again")
    wanted = policy.more_answers if weakest is not None and weakest < policy.sample_below else 0
    if judgement.samples != wanted:
        raise ValueError(
            f"{judgement.samples} more answers were asked for where the recipe asks for {wanted}; "
            "inspect again"
        )
    age = (int(entry.get("attempt", 1)), str(entry.get("id", "")))
    part_id, failed = str(entry.get("part_id") or example.sha256), entry.get("reason") in FAILURES
    return Line(part_id, age, Part(example, judgement), failed)


def digest(parts: Iterable[Part]) -> str:
    """SHA-256 over content and label of every part, whatever their order."""
    lines = sorted(f"{part.example.sha256} {part.example.kind}" for part in parts)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _once(examples: Sequence[Example], path: Path) -> list[Example]:
    once: dict[str, Example] = {}
    for e in examples:
        other = once.setdefault(e.sha256, e)
        if other.anomalous != e.anomalous:
            raise UsageError(
                f"{path}: {e.image} and {other.image} are the same picture, one called good and "
                "one anomalous; correct one of them"
            )
    return list(once.values())


def _judgement(told: Mapping[str, Any]) -> Judgement:
    try:
        # From JSON, because strict Python values know no tuple in a list.
        return Judgement.model_validate_json(json.dumps(told), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0] if first["loc"] else "the line"
        raise ValueError(
            f"{name} is {told.get(str(name))!r}: {first['msg']}; inspect again"
        ) from error


def _names(examples: Sequence[Example]) -> str:
    return ", ".join(str(e.image) for e in examples[:_SHOWN])
