"""As evidence fades: escalations, parts passed and rejected, verdicts right, against strength.

    python -m benchmarks.degradations [--count 40] [--escape 0.05] [--model FOLDER] [--keep DIR]
                                      [--image FILE] [--jobs N]

`--count` is the number of parts a product, half of them anomalous. Each is photographed, spoiled by
one degradation of `lad_agent.training.degradations` at one strength, and judged and decided as on
the line, gate included: by the shipped recipe as it is, and by the same recipe after a calibration,
which promises `--escape` at 95% and was made, as `lad-agent calibrate` makes it, on 680 plain parts
a product that are none of these. It has seen no spoiled part, and promised nothing of them. The
same for pictures of another product, for a reference of another product, and without one: these
references make another task, for which a calibration is void.

Prints tables, with exact intervals, and draws the curves into a PNG or SVG. What was judged is kept
(`--keep`, the plain parts with those of `benchmarks.people`), and a run that was killed goes on. By
default 10,400 judgements and 3,400 plain ones, some 26 minutes on two cores; `--count 20` takes two
thirds of it.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks import judged
from benchmarks.judged import Key, share
from benchmarks.progress import shown
from lad_agent import recipe
from lad_agent.confidence import percent
from lad_agent.errors import CheckFailed
from lad_agent.judgement import Judgement, Result
from lad_agent.policy import decide_by_recipe
from lad_agent.promise import SURE
from lad_agent.recipe import Recipe
from lad_agent.training import synloco
from lad_agent.training.calibration import Asked, Part, choose
from lad_agent.training.degradations import DEGRADATIONS, degraded
from lad_agent.training.workers import pool

STRENGTHS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
OTHERS = ("another product", "another product's reference", "no reference")
IMAGE = Path("docs/images/degradation.svg")

PLAIN = 680
"""Parts a product that a calibration is made on, half of them anomalous."""


@dataclass(frozen=True)
class Spoiled:
    """A batch of one product's parts, and what is done to them: a degradation, or one of OTHERS."""

    keys: tuple[Key, ...]
    what: str
    strength: float

    @property
    def product(self) -> str:
        return self.keys[0].product

    @property
    def told(self) -> dict[str, Any]:
        """What its line among the kept ones says of it."""
        return {"product": self.product, "what": self.what, "strength": self.strength}


@dataclass(frozen=True)
class Counts:
    """What became of parts: `passed_bad` of `bad` ones, verdicts `right` on bad and on good."""

    good: int = 0
    bad: int = 0
    escalated: int = 0
    passed_good: int = 0
    passed_bad: int = 0
    rejected_good: int = 0
    right_bad: int = 0
    right_good: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*(a + b for a, b in pairs))

    @property
    def seen(self) -> Sequence[tuple[int, int]]:
        """How many of how many, for each of `TITLES`."""
        return (
            (self.escalated, self.good + self.bad),
            (self.passed_bad, self.bad),
            (self.passed_good, self.good),
            (self.rejected_good, self.good),
        )

    @property
    def accuracy(self) -> float:
        """Balanced accuracy; no verdict is wrong."""
        return (self.right_bad / max(1, self.bad) + self.right_good / max(1, self.good)) / 2


Curves = Mapping[tuple[str, float], Counts]
"""By degradation and strength."""

TITLES = ("sent to people", "bad parts passed", "good parts passed", "good parts rejected")
ACCURACY = "balanced accuracy"
_OF = ("parts", "bad parts", "good parts", "good parts")


def main() -> None:
    parser = judged.arguments(__doc__, count=40, fewest=2)
    parser.add_argument("--escape", type=float, default=0.05)
    parser.add_argument("--image", type=Path, default=IMAGE)
    options = parser.parse_args()
    keys = plain(options.count)
    on = judged.parts(keys, options.model, options.keep, jobs=options.jobs)
    recipes, refused = calibrated(on, options.escape)
    judgements = measure(options.model, options.count, options.keep, options.jobs)
    shipped = {product: recipe.load(recipe.shipped(product)) for product in synloco.PRODUCTS}
    found = {"as shipped": curves(judgements, shipped)}
    if recipes:
        found[f"calibrated for {percent(options.escape)}"] = curves(judgements, recipes)
    print(markdown(found))
    print(f"\nIn brackets: {SURE:.0%}, exact.")
    for words in refused:
        print(f"Not among the calibrated: {words}")
    draw(found, options.image)
    print(f"\n{options.image}", file=sys.stderr)


def plain(count: int) -> list[Key]:
    """Parts to calibrate on: none that is spoiled where that is `count` parts a product."""
    spoiled = {key for batch in batches(count) for key in batch.keys}
    half = (PLAIN // 2 + count) * len(synloco.PRODUCTS)
    keys = [key for key in judged.mixed("train", half, half) if key not in spoiled]
    out: list[Key] = []
    for product in synloco.PRODUCTS:
        mine = [key for key in keys if key.product == product]
        for bad in (False, True):
            out += [key for key in mine if (key.kind != "good") == bad][: PLAIN // 2]
    return out


def calibrated(parts: Sequence[Part], escape: float) -> tuple[dict[str, Recipe], list[str]]:
    """The shipped recipes, each calibrated on its own product's parts, and in words what was
    refused."""
    recipes, refused = {}, []
    for product in sorted({part.example.product for part in parts}):
        task = recipe.load(recipe.shipped(product))
        own = [part for part in parts if part.example.product == product]
        try:
            made = choose(own, task, Asked(escape, sure=SURE))
        except CheckFailed as why:
            refused.append(f"{product}: {why}")
            continue
        recipes[product] = dataclasses.replace(
            task, policy=made.policy, calibration=made.calibration
        )
    return recipes, refused


def measure(
    model: Path, count: int, keep: Path, jobs: int
) -> list[tuple[Spoiled, Sequence[Judgement]]]:
    """What was said of each batch's parts; what is kept is not judged again."""
    keep.mkdir(parents=True, exist_ok=True)
    file = keep / _file(model, count)
    said = {
        _name(line): [Judgement.model_validate(one) for one in line["judgements"]]
        for line in judged.read_lines(file)
    }
    todo = list(batches(count))
    left = [batch for batch in todo if _name(batch.told) not in said]
    if left:
        with pool(jobs, judged.open_reasoner, model) as processes:
            told = zip(left, processes.map(judge, left), strict=True)
            for batch, found in shown(told, len(left), "judging"):
                said[_name(batch.told)] = found
                kept = [one.model_dump(mode="json", exclude_defaults=True) for one in found]
                judged.append_lines(file, [batch.told | {"judgements": kept}])
    return [(batch, said[_name(batch.told)]) for batch in todo]


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


def judge(batch: Spoiled) -> list[Judgement]:
    """Judge one batch, in a process that has opened its reasoner."""
    task = _task(recipe.load(recipe.shipped(batch.product)), batch.what)
    photographs = [_photograph(_shown(key, batch.what)) for key in batch.keys]
    if batch.what in DEGRADATIONS:
        photographs = [
            degraded(photograph, batch.what, batch.strength, key.index)
            for photograph, key in zip(photographs, batch.keys, strict=True)
        ]
    found = judged.judge([judged.question(photograph, task) for photograph in photographs])
    return [judgement.model_copy(update=judged.WORDLESS) for judgement in found]


def curves(
    found: Iterable[tuple[Spoiled, Sequence[Judgement]]], recipes: Mapping[str, Recipe]
) -> Curves:
    """What became of the parts of those products that `recipes` decides."""
    out: dict[tuple[str, float], Counts] = {}
    for batch, judgements in found:
        if batch.product in recipes:
            which = batch.what, batch.strength
            own = counts(batch, judgements, recipes[batch.product])
            out[which] = out.get(which, Counts()) + own
    return out


def counts(batch: Spoiled, judgements: Sequence[Judgement], task: Recipe) -> Counts:
    """Decide one batch as on the line."""
    task, total = _task(task, batch.what), Counts()
    for key, judgement in zip(batch.keys, judgements, strict=True):
        result = decide_by_recipe(judgement, task)[1].result
        # A part of another product is no good part, whatever it is to its own recipe.
        bad = key.kind != "good" or batch.what == "another product"
        total += Counts(
            good=not bad,
            bad=bad,
            escalated=result is Result.NOT_DECIDABLE,
            passed_good=not bad and result is Result.OK,
            passed_bad=bad and result is Result.OK,
            rejected_good=not bad and result is Result.NOT_OK,
            right_bad=bad and judgement.anomalous is True,
            right_good=not bad and judgement.anomalous is False,
        )
    return total


def markdown(found: Mapping[str, Curves]) -> str:
    """Tables of strength by degradation, and one of what has no strength; `found` is by who
    decides, the shipped recipes first."""
    out = []
    strengths = [f"{strength:g}" for strength in STRENGTHS]
    for way, curves in found.items():
        for place, (title, of) in enumerate(zip(TITLES, _OF, strict=True)):
            parts = curves["nothing", 0.0].seen[place][1]
            rows = [[f"{title} of {parts} {of}, {way}", *strengths]]
            rows += [
                [name, *(share(*counts.seen[place]) for counts in curve(curves, name))]
                for name in DEGRADATIONS
            ]
            out.append(judged.table(rows))
    first = next(iter(found.values()))
    rows = [[ACCURACY, *strengths]]
    rows += [
        [name, *(f"{counts.accuracy:.1%}" for counts in curve(first, name))]
        for name in DEGRADATIONS
    ]
    out.append(judged.table(rows))
    rows = [["", "decided", "parts", *TITLES]]
    for name in OTHERS:
        for way, curves in found.items():
            counts = curves[name, 1.0]
            shares = [share(*seen) for seen in counts.seen]
            rows.append([name, way, f"{counts.good + counts.bad}", *shares])
    return "\n\n".join([*out, judged.table(rows)])


def curve(found: Curves, name: str) -> list[Counts]:
    """Of one degradation, at every strength."""
    return [found["nothing", 0.0], *(found[name, strength] for strength in STRENGTHS[1:])]


def draw(found: Mapping[str, Curves], path: Path) -> None:
    """One panel a degradation with a curve a title, dashed where other recipes than the first ones
    decide; the same figures give the same file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "degradations", "svg.fonttype": "none"}
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 4, figsize=(11, 5.8), sharex=True, sharey=True)
    colours = dict(zip(TITLES, ("#2f7fc1", "#d2691e", "#8a8a8a", "#8e44ad"), strict=True))
    first = next(iter(found.values()))
    for panel, name in zip(panels.flat, DEGRADATIONS, strict=True):
        told = [counts.accuracy for counts in curve(first, name)]
        panel.plot(STRENGTHS, told, marker="o", markersize=3, label=ACCURACY, color="#2e9e62")
        for dashes, (way, curves) in zip(("-", "--"), found.items(), strict=False):
            for place, title in enumerate(TITLES):
                pairs = [counts.seen[place] for counts in curve(curves, name)]
                values = [seen / max(1, of) for seen, of in pairs]
                style = {"color": colours[title], "label": f"{title}, {way}", "linestyle": dashes}
                panel.plot(STRENGTHS, values, marker="o", markersize=3, **style)
        panel.set_title(name)
        panel.set_ylim(-0.03, 1.03)
        panel.grid(alpha=0.3)
    plain = first["nothing", 0.0]
    parts = f"{plain.good + plain.bad} parts a point, {plain.bad} of them bad"
    figure.supxlabel(f"strength ({parts})")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="upper center", ncols=3)
    figure.tight_layout(rect=(0, 0, 1, 0.87))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _name(line: Mapping[str, Any]) -> tuple[str, str, float]:
    return line["product"], line["what"], line["strength"]


def _file(model: Path, count: int) -> str:
    """A name by all that the judgements depend on."""
    from lad_agent.reasoners.fingerprints import fingerprint

    asked = [judged.asked_sha256(recipe.load(recipe.shipped(p))) for p in synloco.PRODUCTS]
    digest = hashlib.sha256(f"{asked}".encode()).hexdigest()[:8]
    return f"{fingerprint(model)}-degraded-{count}-{digest}.jsonl"


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
