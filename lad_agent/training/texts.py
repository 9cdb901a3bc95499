"""What a picture is asked in fine-tuning, and what it should answer.

Every word comes from `lad_agent.protocol` and `lad_agent.rationale`, as in serving. Where the
picture's content is known the answers list it; where only its label is, they say no more than the
label and its mask do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from lad_agent import images, inputs, protocol, rationale, recipe
from lad_agent.cells import CELLS, cell_at
from lad_agent.errors import RecipeError
from lad_agent.rationale import NOTHING, Count, Facts, Fit, Form, Value
from lad_agent.recipe import Recipe, Region, Rule
from lad_agent.training.config import Texts
from lad_agent.training.pocket.rules import holding
from lad_agent.training.pocket.sft import caption
from lad_agent.training.sources import Example, Finding
from lad_agent.training.sources.example import mask_layers

FAULT, FAULTS = "fault", "faults"
"""What a caption tells of a picture whose content is not known: its cause, and by masks where."""
_SPECK = 0.1
"""Of a mask's largest spot the share below which another one is no fault of its own."""
_DRAWS = 4
"""Changed rules that are tried on each picture: one may be unable to break what another can."""


@dataclass(frozen=True)
class Task:
    """What is asked of one product: its rules, the part that is judged, pictures of good parts,
    and the values that each attribute takes in the data. `version` is the recipe's task version,
    empty where there is no recipe; `masked` says that a mask shows where every fault is;
    `references_shown` of the references stand in one prompt."""

    product: str
    rules: tuple[Rule, ...]
    region: Region
    references: tuple[Path, ...]
    values: Mapping[str, tuple[str, ...]]
    version: str = ""
    masked: bool = False
    references_shown: int = 1


@dataclass(frozen=True)
class Text:
    """One training text; `images` are the files of its pictures in the messages' order."""

    messages: list[dict[str, Any]]
    completion: str
    images: tuple[Path, ...]
    region: Region
    rules: tuple[Rule, ...] = ()


def tasks(examples: Iterable[Example]) -> dict[str, Task]:
    """The task of every product among `examples`.

    Rules and region are those of the recipe (`recipe_of`), else none. References are the good
    pictures for training, else the recipe's.

    Raises:
        RecipeError: a recipe cannot be used.
    """
    grouped: dict[str, list[Example]] = {}
    for example in examples:
        grouped.setdefault(example.product, []).append(example)
    return {product: _task(product, group) for product, group in grouped.items()}


def recipe_of(product: str, examples: Sequence[Example | Finding]) -> Recipe | None:
    """The recipe that pictures of one product are judged by: the one that a picture was reviewed
    under, else the one that `lad-agent inspect` finds for one (`inputs.nearest`), else the one
    shipped.

    Raises:
        RecipeError: it cannot be used, or is of another product.
    """
    reviewed = dict.fromkeys(e.recipe for e in examples if e.recipe is not None)
    folders = dict.fromkeys(e.image.resolve().parent for e in examples)
    named = chain((path for path in reviewed if path.is_file()), map(inputs.nearest, folders))
    path = next((path for path in named if path is not None), None)
    if path is None:
        return recipe.load(recipe.shipped(product)) if product in recipe.SHIPPED else None
    found = recipe.load(path)
    if found.product != product:
        raise RecipeError(
            f"{path}: of {found.product}, but pictures under it are of {product}; put a "
            f"{inputs.RECIPE_FILE} of {product} beside those"
        )
    return found


def draw(rng: np.random.Generator, example: Example, task: Task, shares: Texts) -> Text:
    """A text about `example`, of a kind drawn by `shares`."""
    kind = rng.random()
    if kind < shares.caption:
        return _caption(rng, example, task, whole=True)
    if kind < shares.caption + shares.question:
        return _caption(rng, example, task, whole=False)
    return inspection(rng, example, task, other_rules=shares.other_rules)


def inspection(
    rng: np.random.Generator, example: Example, task: Task, *, other_rules: float = 0.0
) -> Text:
    """The message of an inspection; in `other_rules` of them its rules are changed, where the
    picture's content is known: half of these all hold, in the rest one or two do not.

    Where there are no rules, or one is in free text, the label is the answer."""
    rules, facts = task.rules, example.facts
    if facts is not None and _all_known(rules):
        if rng.random() < other_rules:
            rules = _other_rules(rng, rules, facts, task.values)
        statements = rationale.clauses(example.product, rules, facts)
        anomalous = any(not statement.ok for statement in statements)
        completion = protocol.answer_text(rationale.write(statements), anomalous)
    else:
        said = label_rationale(example, task)
        completion = protocol.answer_text(said, example.anomalous)
    pool = [path for path in task.references if path != example.image]
    count = min(task.references_shown, len(pool))
    shown = [pool.pop(int(rng.integers(len(pool)))) for _ in range(count)]
    messages = protocol.messages(example.product, rules, len(shown))
    return Text(messages, completion, (*shown, example.image), task.region, tuple(rules))


def answers(
    examples: Sequence[Example], tasks: Mapping[str, Task], *, other_rules: float
) -> set[bool]:
    """The answers that inspections of these pictures have, as far as a few draws of each tell."""
    rng, found = np.random.default_rng(0), set[bool]()
    for share in (0.0, *[1.0] * _DRAWS * (other_rules > 0)):
        for example in examples:
            text = inspection(rng, example, tasks[example.product], other_rules=share)
            answer = protocol.parse(text.completion)
            assert answer is not None  # texts are written by the protocol
            found.add(answer.anomalous)
            if len(found) == 2:
                return found
    return found


def label_rationale(example: Example, task: Task) -> str:
    """All that a label and its mask say, e.g. `R2 is broken: missing nut at C3`; a rule that the
    task has no longer is not named."""
    if not example.anomalous:
        return rationale.HOLDS
    cause = _words(example.cause) if example.cause else None
    rule = example.rule if example.rule in {known.id for known in task.rules} else None
    return rationale.write_label(rule, cause, fault_cells(example, task.region))


def fault_cells(example: Example, region: Region) -> tuple[str, ...]:
    """The cells of the middles of a mask's spots, as far as they lie in the region that is judged,
    in reading order; none without a mask.

    Raises:
        UnreadableInput: the mask cannot be read.
    """
    return () if example.mask is None else _spots(example.mask, region)


@lru_cache(maxsize=100_000)
def _spots(mask: Path, region: Region) -> tuple[str, ...]:
    found: set[str] = set()
    for layer in mask_layers(mask):
        shown = images.cut(images.read(layer).image, region).convert("L")
        spots, count = ndimage.label(np.asarray(shown) > 0, np.ones((3, 3)))
        sizes = ndimage.sum_labels(spots > 0, spots, range(1, count + 1))
        large = 1 + np.flatnonzero(sizes >= _SPECK * max(sizes, default=0))
        for y, x in ndimage.center_of_mass(spots > 0, spots, large):
            found.add(cell_at(x, y, *shown.size))
    return tuple(sorted(found, key=CELLS.index))


def order(seed: int, examples: int, count: int) -> list[int]:
    """Which example comes at each of `count` positions: all of them in a new order every round."""
    rng = np.random.default_rng([seed, 1])
    rounds = [rng.permutation(examples) for _ in range(-(-count // examples))]
    return [int(row) for row in np.concatenate(rounds)[:count]]


def _task(product: str, group: Sequence[Example]) -> Task:
    found = recipe_of(product, group)
    values: dict[str, set[str]] = {}
    for example in group:
        for subject, value in (example.facts.attributes if example.facts else {}).items():
            values.setdefault(subject, set()).add(value)
    good = [e.image for e in group if e.split == "train" and not e.anomalous]
    region = found.region if found else Region()
    labels = [e for e in group if e.anomalous and e.facts is None]
    return Task(
        product,
        found.rules if found else (),
        region,
        tuple(good) or (found.references if found else ()),
        {subject: tuple(sorted(seen)) for subject, seen in values.items()},
        found.task_version if found else "",
        bool(labels) and all(fault_cells(e, region) for e in labels),
        found.references_shown if found else 1,
    )


def _caption(rng: np.random.Generator, example: Example, task: Task, *, whole: bool) -> Text:
    facts = example.facts
    if facts is None:
        cause = _words(example.cause or example.kind) if example.anomalous else NOTHING
        # Asked of all or of none, or the question would give the answer away.
        places = {FAULTS: fault_cells(example, task.region)} if task.masked else {}
        facts = Facts(example.product, places, {FAULT: cause})
        names = [*places, FAULT]
    else:
        names = [*facts.places, *facts.attributes]
        if not whole or rng.random() < 0.5:
            names = [names[i] for i in rng.permutation(len(names))]
        if not whole:
            names = names[: int(rng.integers(1, min(3, len(names)) + 1))]
    listing = protocol.caption_text(caption(facts, names))
    return Text(protocol.caption_messages(names), listing, (example.image,), task.region)


def _all_known(rules: Sequence[Rule]) -> bool:
    return bool(rules) and all(rationale.read_rule(rule.text) is not None for rule in rules)


def _other_rules(
    rng: np.random.Generator,
    rules: Sequence[Rule],
    facts: Facts,
    values: Mapping[str, Sequence[str]],
) -> tuple[Rule, ...]:
    wrong: set[int] = set()
    if rng.random() < 0.5:
        count = min(len(rules), int(rng.integers(1, 3)))
        wrong = set(rng.choice(len(rules), count, replace=False).tolist())
    out = []
    for index, rule in enumerate(rules):
        form = rationale.read_rule(rule.text)
        assert form is not None
        if isinstance(form, Count):
            noun = next((n for n in facts.places if rationale.same_noun(n, form.noun)), form.noun)
            form = Count(noun, form.number)
        made = _off(rng, form, facts, values) if index in wrong else holding(form, facts, rng)
        out.append(Rule(id=rule.id, text=rationale.write_rule(made)))
    return tuple(out)


def _off(
    rng: np.random.Generator, form: Form, facts: Facts, values: Mapping[str, Sequence[str]]
) -> Form:
    """A rule of that form which the picture breaks, if there is one."""
    match form:
        case Count(noun, _):
            true = len(facts.places.get(noun, ()))
            near = [n for n in range(max(0, true - 3), true + 4) if n != true]
            return Count(noun, int(rng.choice(near)))
        case Value(subject, _):
            seen = facts.attributes.get(subject)
            others = [v for v in values.get(subject, ()) if v not in (seen, NOTHING)]
            return Value(subject, str(rng.choice(others))) if others else form
        case Fit(subject, other, pairs):
            told = [value for value, _ in pairs]
            turned = told[1:] + told[:1]
            return Fit(
                subject, other, tuple((v, k) for v, (_, k) in zip(turned, pairs, strict=True))
            )
        case _:
            return form


def _words(name: str) -> str:
    return name.replace("_", " ")
