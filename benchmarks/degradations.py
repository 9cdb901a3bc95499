"""As evidence fades: escalations, bad parts passed and verdicts right, against strength.

    python -m benchmarks.degradations [--count 40] [--model FOLDER] [--keep DIR] [--image FILE]
                                      [--jobs N]

`--count` is the number of parts a product, half of them anomalous. Each is photographed, spoiled by
one degradation of `lad_agent.training.degradations` at one strength, and judged and decided as on
the line, gate and shipped policy included. The same for pictures of another product, for a
reference of another product, and without one. Prints tables, and draws the curves into a PNG or
SVG. What was counted is kept (`--keep`), and a run that was killed goes on. By default 10,400
judgements, some 20 minutes on two cores; `--count 20` takes half of it.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import judged
from benchmarks.judged import Key
from lad_agent import policy, recipe
from lad_agent.judgement import Result
from lad_agent.recipe import Recipe
from lad_agent.training import synloco
from lad_agent.training.degradations import DEGRADATIONS, degraded
from lad_agent.training.workers import pool

STRENGTHS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
OTHERS = ("another product", "another product's reference", "no reference")
IMAGE = Path("docs/images/degradation.svg")


@dataclass(frozen=True)
class Spoiled:
    """A batch of one product's parts, and what is done to them: a degradation, or one of OTHERS."""

    keys: tuple[Key, ...]
    what: str
    strength: float

    @property
    def told(self) -> dict[str, Any]:
        """What its line among the kept ones says of it."""
        product = self.keys[0].product
        return {"product": product, "what": self.what, "strength": self.strength}


@dataclass(frozen=True)
class Counts:
    """What became of parts: `passed_bad` of `bad` ones, verdicts `right` on bad and on good."""

    good: int = 0
    bad: int = 0
    escalated: int = 0
    passed_good: int = 0
    passed_bad: int = 0
    right_bad: int = 0
    right_good: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*(a + b for a, b in pairs))

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Sent to people; bad parts passed, of the bad; good ones passed, of the good; balanced
        accuracy (no verdict is wrong)."""
        return (
            self.escalated / max(1, self.good + self.bad),
            self.passed_bad / max(1, self.bad),
            self.passed_good / max(1, self.good),
            (self.right_bad / max(1, self.bad) + self.right_good / max(1, self.good)) / 2,
        )


Curves = Mapping[tuple[str, float], Counts]
TITLES = ("Sent to people", "Bad parts passed", "Good parts passed", "Balanced accuracy")
"""Of `Counts.shares`."""


def main() -> None:
    parser = judged.arguments(__doc__, count=40, fewest=2)
    parser.add_argument("--image", type=Path, default=IMAGE)
    options = parser.parse_args()
    found = measure(options.model, options.count, options.keep, options.jobs)
    print(markdown(found))
    draw(found, options.image)
    print(f"\n{options.image}", file=sys.stderr)


def measure(model: Path, count: int, keep: Path, jobs: int) -> Curves:
    """What became of the parts, by degradation and strength; what is kept is not done again."""
    keep.mkdir(parents=True, exist_ok=True)
    file = keep / _file(model, count)
    counted = {_name(line): Counts(**line["counts"]) for line in judged.read_lines(file)}
    todo = list(batches(count))
    left = [batch for batch in todo if _name(batch.told) not in counted]
    if left:
        with pool(jobs, judged.open_reasoner, model) as processes:
            for batch, counts in zip(left, processes.map(count_of, left), strict=True):
                counted[_name(batch.told)] = counts
                judged.append_lines(file, [batch.told | {"counts": dataclasses.asdict(counts)}])
                print(f"{len(counted)} of {len(todo)} batches", end="\r", file=sys.stderr)
    found: dict[tuple[str, float], Counts] = {}
    for batch in todo:
        which = batch.what, batch.strength
        found[which] = found.get(which, Counts()) + counted[_name(batch.told)]
    return found


def batches(count: int) -> Iterable[Spoiled]:
    """All that is judged; strength 0 once, for it is the same whatever is done."""
    for product in synloco.PRODUCTS:
        keys = tuple(judged.mixed("train", count - count // 2, count // 2, (product,)))
        yield Spoiled(keys, "nothing", 0.0)
        for name in DEGRADATIONS:
            for strength in STRENGTHS[1:]:
                yield Spoiled(keys, name, strength)
        for name in OTHERS:
            yield Spoiled(keys, name, 1.0)


def count_of(batch: Spoiled) -> Counts:
    """Judge and decide one batch, in a process that has opened its reasoner."""
    task = recipe.load(recipe.shipped(batch.keys[0].product))
    task = _task(task, batch.what)
    photographs = [_photograph(_shown(key, batch.what)) for key in batch.keys]
    if batch.what in DEGRADATIONS:
        photographs = [
            degraded(photograph, batch.what, batch.strength, key.index)
            for photograph, key in zip(photographs, batch.keys, strict=True)
        ]
    judgements = judged.judge([judged.question(found, task) for found in photographs])
    total = Counts()
    for key, judgement in zip(batch.keys, judgements, strict=True):
        result = policy.decide(judgement, task.policy).result
        # A part of another product is no good part, whatever it is to its own recipe.
        bad = key.kind != "good" or batch.what == "another product"
        total += Counts(
            good=not bad,
            bad=bad,
            escalated=result is Result.NOT_DECIDABLE,
            passed_good=not bad and result is Result.OK,
            passed_bad=bad and result is Result.OK,
            right_bad=bad and judgement.anomalous is True,
            right_good=not bad and judgement.anomalous is False,
        )
    return total


def markdown(found: Curves) -> str:
    """Tables of strength by degradation, and one of what has no strength."""
    out = []
    for place, title in enumerate(TITLES):
        rows = [[title, *(f"{strength:g}" for strength in STRENGTHS)]]
        rows += [
            [name, *(f"{share:.1%}" for share in curve(found, name)[place])]
            for name in DEGRADATIONS
        ]
        out.append(judged.table(rows))
    rows = [["", "parts", "sent to people", "bad parts passed", "good parts passed"]]
    for name in OTHERS:
        counts = found[name, 1.0]
        people, passed, good, _ = counts.shares
        number = f"{counts.good + counts.bad}"
        passes = f"{counts.passed_bad} ({passed:.1%})", f"{counts.passed_good} ({good:.1%})"
        rows.append([name, number, f"{people:.1%}", *passes])
    return "\n\n".join([*out, judged.table(rows)])


def curve(found: Curves, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The shares of `Counts` of one degradation at every strength, shape [4, strengths]."""
    counts = [found["nothing", 0.0], *(found[name, strength] for strength in STRENGTHS[1:])]
    return np.array([count.shares for count in counts]).T


def draw(found: Curves, path: Path) -> None:
    """One panel a degradation with a curve a title; the same figures give the same file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "degradations", "svg.fonttype": "none"}
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 4, figsize=(11, 5.4), sharex=True, sharey=True)
    labels = [title.lower() for title in TITLES]
    colours = ("#2f7fc1", "#d2691e", "#8a8a8a", "#2e9e62")
    for panel, name in zip(panels.flat, DEGRADATIONS, strict=True):
        for values, label, colour in zip(curve(found, name), labels, colours, strict=True):
            panel.plot(STRENGTHS, values, marker="o", markersize=3, label=label, color=colour)
        panel.set_title(name)
        panel.set_ylim(-0.03, 1.03)
        panel.grid(alpha=0.3)
    figure.supxlabel("strength")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="upper center", ncols=4)
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _name(line: Mapping[str, Any]) -> tuple[str, str, float]:
    return line["product"], line["what"], line["strength"]


def _file(model: Path, count: int) -> str:
    """A name by all that the counts depend on."""
    from lad_agent.reasoners.fingerprints import fingerprint

    tasks = [recipe.load(recipe.shipped(product)).recipe_version for product in synloco.PRODUCTS]
    names = [field.name for field in dataclasses.fields(Counts)]
    digest = hashlib.sha256(f"{tasks} {judged.SIZE} {names}".encode()).hexdigest()[:8]
    return f"{fingerprint(model)}-degradations-{count}-{digest}.jsonl"


_photograph = lru_cache(maxsize=256)(judged.drawn)
"""The same part is spoiled again and again."""


def _shown(key: Key, what: str) -> Key:
    if what != "another product":
        return key
    return dataclasses.replace(key, product=_other(key.product))


def _other(product: str) -> str:
    place = synloco.PRODUCTS.index(product) + 1
    return synloco.PRODUCTS[place % len(synloco.PRODUCTS)]


def _task(task: Recipe, what: str) -> Recipe:
    """The recipe with another product's reference, or with none; else as it is."""
    if what not in OTHERS[1:]:
        return task
    other = recipe.load(recipe.shipped(_other(task.product)))
    wrong = what == OTHERS[1]
    return dataclasses.replace(
        task,
        references=other.references if wrong else (),
        reference_sha256=other.reference_sha256 if wrong else (),
        task_version=f"{task.task_version}, {what}",
    )


if __name__ == "__main__":
    main()
