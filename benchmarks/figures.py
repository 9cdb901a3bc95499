"""The figures of the pocket reasoner, on pictures that no training used.

    python -m benchmarks.figures [--count 800] [--model FOLDER] [--out figures.json] [--jobs N]
    python -m benchmarks.figures --write figures.json

`--count` is the number of test pictures a product, half of them anomalous, within the ranges of
training; three times as many lie beyond them, so that one product beyond one range is some 400.
Seeds start at 1,000,000, training used those below. Everything goes through the reasoner and the
policy as `lad-agent inspect` does; the tables beside it are what its verdicts must be compared
with: always-yes, always-no, a hand-made rule on coloured blobs, and the tower's object head with
the rules counted by program. Then what shows that it looks: pictures blanked, rules taken away,
rules changed; and the listing alone, and faults by how far a count is off its rule. `--write` puts
what was measured into README.md, docs/pocket.md and the model's card.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.progress import shown
from lad_agent import atomic, policy, rationale, recipe
from lad_agent.judgement import Judgement
from lad_agent.rationale import Count, Facts
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.local import TransformersReasoner
from lad_agent.reasoners.witness import load_witness
from lad_agent.recipe import Recipe, Rule
from lad_agent.training import synloco
from lad_agent.training.evaluation import Judged, Metrics, Truth, metrics, verdicts
from lad_agent.training.pocket import rules as random_rules
from lad_agent.training.pocket.data import resize
from lad_agent.training.pocket.vision import visual_tokens
from lad_agent.training.synloco import dataset
from lad_agent.training.workers import pool

SEED = 1_000_000
COUNTED_FAULTS = {
    "screw_bag": ("R1", "R2", "R3", "R4"),
    "pushpins": ("R1", "R2"),
    "breakfast_box": ("R1", "R2", "R3"),
    "juice_bottle": ("R1", "R2", "R3"),
    "splicing_connectors": ("R1", "R2", "R3", "R4", "R6"),
}
"""Rules of count and of pairing, for the row without rules and reference."""
DOCUMENTS = ("README.md", "docs/pocket.md")
BEYOND = 3
"""Pictures from beyond the ranges of training, for each from within."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A picture, its facts and its truth under the recipe it is judged by."""

    recipe: Recipe
    image: Image.Image
    facts: Facts
    truth: Truth

    @property
    def question(self) -> Question:
        """The case as the reasoner gets it."""
        digest = hashlib.sha256(np.asarray(self.image).tobytes()).hexdigest()
        return Question(self.recipe, self.image, digest)


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of the pocket reasoner.")
    parser.add_argument("--count", type=int, default=800)
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", type=Path, metavar="FIGURES")
    options = parser.parse_args()
    if options.write:
        write(json.loads(options.write.read_bytes()), options.model)
        return
    with reasoners(options.model, options.jobs) as judges:
        figures = measure(judges, options.model, options.count)
    print(markdown(figures))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def reasoners(folder: Path, jobs: int) -> Executor:
    """Processes that `judge` lets judge, each with the model in `folder` on one thread."""
    return pool(jobs, _open, folder)


def measure(judges: Executor, folder: Path, count: int) -> Metrics:
    """All rows."""
    cases = [c for product in synloco.PRODUCTS for c in pictures(product, count, "train", 0)]
    beyond = [c for p in synloco.PRODUCTS for c in pictures(p, BEYOND * count, "held-out", 1)]
    judged, judgements = judge(judges, cases, "in range")
    outside, _ = judge(judges, beyond, "held out")
    head = by_head(folder, cases)
    return {
        "model": fingerprint(folder),
        "count": count,
        "pocket": grouped(judged),
        "held_out": grouped(outside),
        "strata": strata([*judged, *outside]),
        "baselines": {
            "always_yes": grouped(_always(cases, True)),
            "always_no": grouped(_always(cases, False)),
            "blobs": grouped(by_blobs(cases)),
            "object_head": grouped(head),
        },
        "listing": listing(cases, judgements),
        "looks": looks(judges, cases),
        "rule_difference": rule_difference(judges, count),
        "other_pictures": other_pictures(judges, count // 8),
    }


def pictures(
    product: str, count: int, split: Literal["train", "held-out"], offset: int
) -> list[Case]:
    """Half good, a quarter logical, a quarter structural."""
    task = recipe.load(recipe.shipped(product))
    shares: dict[synloco.Kind, int] = {"normal": 2, "logical": 4, "structural": 4}
    kinds = [kind for kind, share in shares.items() for _ in range(count // share)]
    return [picture(task, split, SEED + offset, index, kind) for index, kind in enumerate(kinds)]


def picture(
    task: Recipe,
    split: Literal["train", "held-out"],
    seed: int,
    index: int,
    kind: Literal["normal", "logical", "structural", "varied"],
) -> Case:
    """One picture of a kind, under a recipe of its product."""
    sample = synloco.sample(task.product, seed, index, split, 392, kind)
    facts = synloco.facts_of(sample)
    truth = Truth(
        product=task.product,
        anomalous=_anomalous(task, facts),
        kind={"normal": "good"}.get(kind, kind),
        rule=sample.plan.rule,
        stratum=sample.photo.stratum,
        difference=_difference(task, facts),
        image=Path(),
    )
    return Case(task, Image.fromarray(resize(sample.photo.image)), facts, truth)


def with_rules(task: Recipe, rules: Sequence[Rule]) -> Recipe:
    """The recipe with other rules."""
    words = json.dumps([rule.model_dump() for rule in rules])
    version = hashlib.sha256(f"{task.task_version}{words}".encode()).hexdigest()[:16]
    return dataclasses.replace(task, rules=tuple(rules), task_version=version)


def judge(
    judges: Executor, cases: Sequence[Case], what: str
) -> tuple[list[Judged], list[Judgement]]:
    """Judge and decide all cases, as the workflow does."""
    parts = [cases[start : start + 64] for start in range(0, len(cases), 64)]
    asked = [[case.question for case in part] for part in parts]
    said = shown(judges.map(_judge_part, asked), len(parts), what)
    judgements = [judgement for found in said for judgement in found]
    pairs = zip(cases, judgements, strict=True)
    return [
        Judged.of(case.truth, j, policy.decide(j, case.recipe.policy).result) for case, j in pairs
    ], judgements


_reasoners: list[TransformersReasoner] = []
"""The one of this process."""


def _open(folder: Path) -> None:
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    _reasoners.append(TransformersReasoner(folder, max_batch=64))


def _judge_part(questions: list[Question]) -> list[Judgement]:
    return list(_reasoners[0].judge_batch(questions))


def grouped(judged: Sequence[Judged]) -> Metrics:
    """Figures of all and of each product."""
    return {
        "all": metrics(judged),
        **{
            product: metrics([j for j in judged if j.truth.product == product])
            for product in synloco.PRODUCTS
        },
    }


def strata(judged: Sequence[Judged]) -> Metrics:
    """Verdicts by nuisance axis, and by product and axis, worst first: logical faults against good
    parts."""
    logical = [j for j in judged if j.truth.kind != "structural"]
    rows = {}
    for axis in sorted({axis for j in logical for axis in j.truth.stratum.split("+")}):
        group = [j for j in logical if axis in j.truth.stratum.split("+")]
        rows[axis] = verdicts(group)
        for product in synloco.PRODUCTS:
            if own := [j for j in group if j.truth.product == product]:
                rows[f"{product} / {axis}"] = verdicts(own)
    return dict(sorted(rows.items(), key=lambda row: row[1]["balanced_accuracy"] or 1.0))


def by_head(folder: Path, cases: Sequence[Case]) -> list[Judged]:
    """The tower's object head, its facts judged by the rules in program."""
    witness = load_witness(folder)
    if witness is None:
        return []
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    out = []
    for start in range(0, len(cases), 64):
        part = cases[start : start + 64]
        pixels = np.stack([np.asarray(case.image) for case in part])
        with torch.inference_mode():
            seen = witness.facts(visual_tokens(model, pixels))
        for case, facts in zip(part, seen, strict=True):
            bad = _anomalous(case.recipe, facts)
            out.append(_plain(case.truth, bad, 1.0 if bad else 0.0))
    return out


def by_blobs(cases: Sequence[Case]) -> list[Judged]:
    """A rule by hand: count and area of blobs by colour, against 40 good parts of the product."""
    limits = {
        product: _blob_limits([c.image for c in pictures(product, 80, "train", 7)[:40]])
        for product in synloco.PRODUCTS
    }
    out = []
    for case in cases:
        middle, spread = limits[case.truth.product]
        distance = float(np.abs((_blobs(case.image) - middle) / spread).mean())
        out.append(_plain(case.truth, distance > 1.0, distance / (1.0 + distance)))
    return out


def listing(cases: Sequence[Case], judgements: Sequence[Judgement]) -> Metrics:
    """How often the rationale's list agrees with what is there, in number and in place."""
    rows: dict[str, list[tuple[bool, bool, bool]]] = {}
    for case, judgement in zip(cases, judgements, strict=True):
        said = {c.rule: c for c in rationale.read(judgement.rationale) or ()}
        for rule in case.recipe.rules:
            form, claim = rationale.read_rule(rule.text), said.get(rule.id)
            if form is None:
                continue
            true = rationale.clause(rule.id, form, case.facts)
            rows.setdefault(case.truth.product, []).append(
                (
                    claim is not None and claim.observed == true.observed,
                    claim is not None and claim.places == true.places,
                    isinstance(form, Count),
                )
            )
    return {
        product: {
            "statements": len(found),
            "value_right": float(np.mean([value for value, _, _ in found])),
            "places_right": float(np.mean([place for _, place, count in found if count])),
        }
        for product, found in rows.items()
    }


def looks(judges: Executor, cases: Sequence[Case]) -> Metrics:
    """Balanced accuracy beside other references, with the query blanked, without rules and
    reference, with a rule changed.

    The quality gate is off, only greedy rationales are drawn, and every second case
    is taken.
    """
    some = [_greedy(c) for c in cases if c.truth.kind != "structural"][::2]
    blank = Image.new("RGB", some[0].image.size, (128, 128, 128))
    blanked, _ = judge(judges, [dataclasses.replace(case, image=blank) for case in some], "blanked")
    counted = [
        c for c in some if not c.truth.anomalous or c.truth.rule in COUNTED_FAULTS[c.truth.product]
    ]
    bare, _ = judge(judges, [_without_rules(case) for case in counted], "no rules")
    changed, _ = judge(judges, [_greedy(c) for c in changed_rule(len(some) // 5)], "three washers")
    with TemporaryDirectory() as folder:
        beside, _ = judge(judges, _other_references(some, Path(folder)), "other references")
    return {
        "other_good_references": verdicts(beside),
        "query_blanked": verdicts(blanked),
        "no_rules_no_reference": verdicts(bare),
        "three_washers_instead_of_two": verdicts(changed),
    }


def changed_rule(count: int) -> list[Case]:
    """Screw bags with two or three washers, else complete, under `exactly 3 washers`."""
    task = recipe.load(recipe.shipped("screw_bag"))
    changed = with_rules(
        task,
        [r if r.id != "R1" else Rule(id="R1", text="exactly 3 washers") for r in task.rules],
    )
    out = []
    index = 0
    wanted = {2: count // 2, 3: count // 2}
    while any(wanted.values()):
        kind: Literal["normal", "logical"] = "normal" if wanted[2] else "logical"
        case = picture(changed, "train", SEED + 11, index, kind)
        index += 1
        others = all(
            len(case.facts.places[noun]) == number
            for noun, number in (("nuts", 2), ("long screws", 1), ("short screws", 1))
        )
        washers = len(case.facts.places["washers"])
        if others and wanted.get(washers, 0):
            wanted[washers] -= 1
            out.append(case)
    return out


def rule_difference(judges: Executor, count: int) -> Metrics:
    """Any counts, one rule off by 0 to 4 or more: verdicts right, and bad parts passed."""
    cases: dict[int, list[Case]] = {}
    for product in ("screw_bag", "pushpins", "breakfast_box"):
        task = recipe.load(recipe.shipped(product))
        for index in range(count // 2):
            difference = index % 5
            case = _off_by(task, index, difference)
            if case is not None:
                cases.setdefault(difference, []).append(case)
    rows = {}
    for difference, group in sorted(cases.items()):
        judged, _ = judge(judges, group, f"off by {difference}")
        rows[str(difference)] = {
            "n": len(group),
            "right": float(np.mean([j.anomalous == j.truth.anomalous for j in judged])),
            "passed": float(np.mean([j.result == "OK" for j in judged])),
        }
    return rows


def other_pictures(judges: Executor, count: int) -> Metrics:
    """Share passed of other products' pictures, bare walls and noise, the quality gate off."""
    rng = np.random.default_rng(SEED)
    rows: dict[str, list[Case]] = {"other product": [], "bare wall": [], "noise": []}
    for number, product in enumerate(synloco.PRODUCTS):
        task = recipe.load(recipe.shipped(product))
        other = synloco.PRODUCTS[(number + 1 + SEED) % len(synloco.PRODUCTS)]
        truth = Truth(product, True, "logical", None, "other", 0, Path())
        for index in range(count):
            sample = synloco.sample(other, SEED + 13, index, "train", 196, "normal")
            wall = rng.uniform(40, 220, 3) + rng.normal(0, 3, (196, 196, 3))
            noise = rng.integers(0, 256, (196, 196, 3))
            for name, pixels in (
                ("other product", sample.photo.image),
                ("bare wall", wall),
                ("noise", noise),
            ):
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                rows[name].append(Case(task, image, Facts(other), truth))
    out = {}
    for name, cases in rows.items():
        judged, _ = judge(judges, cases, name)
        out[name] = {
            "n": len(judged),
            "passed": sum(j.result == "OK" for j in judged),
            "to people": sum(j.result == "NotDecidable" for j in judged),
        }
    return out


def markdown(figures: Metrics) -> str:
    """The tables of README and model card."""
    rows = [
        "| product | logical | AUROC | structural | AUROC | overkill | escapes | coverage "
        "| object head | blobs | always | cause named |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    base = figures["baselines"]
    for name in ("all", *synloco.PRODUCTS):
        own = figures["pocket"][name]
        values = [
            own["logical"]["balanced_accuracy"],
            own["logical"]["auroc"],
            own["structural"]["balanced_accuracy"],
            own["structural"]["auroc"],
            own["overkill_rate"],
            own["escape_rate"],
            own["coverage"],
            base["object_head"][name]["logical"]["balanced_accuracy"],
            base["blobs"][name]["logical"]["balanced_accuracy"],
            base["always_no"][name]["logical"]["balanced_accuracy"],
            own["cause_named"],
        ]
        told = ["none" if value is None else f"{value:.3f}" for value in values]
        rows.append(f"| {name} | " + " | ".join(told) + " |")
    check = figures["pocket"]["all"]["evidence_check"]
    rows += [
        "",
        f"Evidence check: catches {_percent(check['catch_rate'])} of the wrong verdicts, and sends "
        f"{_percent(check['cost'])} of the right ones to people.",
        "",
        *_beyond(figures),
        "",
        "| it looks | n | balanced accuracy |",
        "|---|---|---|",
    ]
    for name, row in figures["looks"].items():
        rows.append(f"| {name.replace('_', ' ')} | {row['n']} | {row['balanced_accuracy']:.3f} |")
    rows += ["", "| count off its rule by | n | right | passed |", "|---|---|---|---|"]
    for name, row in figures["rule_difference"].items():
        rows.append(f"| {name} | {row['n']} | {row['right']:.3f} | {row['passed']:.3f} |")
    rows += ["", "| listing alone | statements | value right | places right |", "|---|---|---|---|"]
    for name, row in figures["listing"].items():
        rows.append(
            f"| {name} | {row['statements']} | {row['value_right']:.3f} "
            f"| {row['places_right']:.3f} |"
        )
    rows += ["", "| picture of | n | passed | to people |", "|---|---|---|---|"]
    for name, row in figures["other_pictures"].items():
        rows.append(f"| {name} | {row['n']} | {row['passed']} | {row['to people']} |")
    return "\n".join(rows)


def write(figures: Metrics, model: Path) -> None:
    """Put figures into the documents' tables and the model's card; they must be the model's own."""
    figures = json.loads(json.dumps(figures), parse_float=lambda told: round(float(told), 6))
    if figures["model"] != fingerprint(model):
        sys.exit(f"measured of {figures['model']}, {model} is {fingerprint(model)}")
    tables = markdown(figures)
    paths = [Path(__file__).parents[1] / name for name in DOCUMENTS]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    if lost := homeless(texts.values(), tables):
        sys.exit(f"no document has a table headed {lost[0]}")
    for path, text in texts.items():
        atomic.write(path, retold(text, tables))
    path = model / "model_card.json"
    card = json.loads(path.read_bytes())
    atomic.write(path, json.dumps(card | {"figures": _in_card(figures)}, indent=1) + "\n")


def homeless(texts: Collection[str], tables: str) -> list[str]:
    """The headings of those of `tables` that none of `texts` has."""
    return [
        table.splitlines()[0]
        for table in tables.split("\n\n")
        if not any(_place(table, text) for text in texts)
    ]


def retold(text: str, tables: str) -> str:
    """`text` with its tables, and its line on evidence, as `tables` has those of that heading."""
    for table in tables.split("\n\n"):
        found = _place(table, text)  # README has the first two
        if found:
            text = text[: found.start()] + table + text[found.end() :]
    return text


def _place(table: str, text: str) -> re.Match[str] | None:
    head = re.escape(table.splitlines()[0]) if table.startswith("|") else r"Evidence check: .*"
    return re.search(rf"^{head}$(\n\|.*)*", text, re.MULTILINE)


def _in_card(figures: Metrics) -> Metrics:
    rates = ("n", "balanced_accuracy", "auroc", "escape_rate", "overkill_rate", "coverage")
    verdicts = ("balanced_accuracy", "auroc")
    products = {
        name: {rate: own[rate] for rate in (*rates, "well_formed", "cause_named")}
        | {kind: {one: own[kind][one] for one in verdicts} for kind in ("logical", "structural")}
        for name, own in figures["pocket"].items()
    }
    return {
        "command": f"python -m benchmarks.figures --count {figures['count']}",
        "products": products,
        "held_out_logical": figures["held_out"]["all"]["logical"]["balanced_accuracy"],
        "looks": figures["looks"],
        "rule_difference": figures["rule_difference"],
    }


def _beyond(figures: Metrics) -> list[str]:
    """The rows of what lies beyond the ranges of training."""
    held = {name: own["logical"] for name, own in figures["held_out"].items()}
    found = {"any": held["all"], **figures["strata"]}
    found |= {f"{product} / any": held[product] for product in synloco.PRODUCTS}
    rows = ["| beyond the range of | n | logical | worst product |", "|---|---|---|---|"]
    for axis in found:
        if "/" in axis or axis == "in-range":
            continue
        own = {product: found.get(f"{product} / {axis}") for product in synloco.PRODUCTS}
        judged = {p: row for p, row in own.items() if row and row["balanced_accuracy"] is not None}
        if not judged:
            continue
        worst = min(judged, key=lambda product: judged[product]["balanced_accuracy"])
        rows.append(
            f"| {axis} | {found[axis]['n']} | {found[axis]['balanced_accuracy']:.3f} "
            f"| {worst}: {judged[worst]['balanced_accuracy']:.3f} of {judged[worst]['n']} |"
        )
    return rows


def _off_by(task: Recipe, index: int, difference: int) -> Case | None:
    """A varied picture under rules that all hold, but one count off by `difference`."""
    case = picture(task, "train", SEED + 17, index, "varied")
    rng = np.random.default_rng([SEED, index])
    true = [
        random_rules.holding(form, case.facts, rng) for form in random_rules.forms(task.product)
    ]
    counts = [n for n, form in enumerate(true) if isinstance(form, Count)]
    chosen = int(rng.choice(counts))
    form = true[chosen]
    if difference and isinstance(form, Count):
        options = [n for n in (form.number - difference, form.number + difference) if 0 <= n <= 6]
        if not options:
            return None
        true[chosen] = Count(form.noun, int(rng.choice(options)))
    rules = [Rule(id=f"R{n}", text=rationale.write_rule(f)) for n, f in enumerate(true, 1)]
    changed = with_rules(task, rules)
    truth = dataclasses.replace(
        case.truth,
        anomalous=_anomalous(changed, case.facts),
        kind="logical" if difference else "good",
        difference=difference,
    )
    return dataclasses.replace(case, recipe=changed, truth=truth)


def _greedy(case: Case) -> Case:
    """The case under a policy that draws no more rationales."""
    plain = case.recipe.policy.model_copy(update={"samples": 0})
    return dataclasses.replace(case, recipe=dataclasses.replace(case.recipe, policy=plain))


def _other_references(cases: Sequence[Case], folder: Path) -> list[Case]:
    """The cases beside ten good pictures of their product by turns, every second one plain."""
    shown: dict[str, list[Path]] = {}
    for product in synloco.PRODUCTS:
        for number in range(10):
            seed = SEED + 29 + number
            sample = synloco.sample(product, seed, 0, "train", 392, "normal")
            pixels = dataset.reference(product, seed, 392) if number % 2 else sample.photo.image
            shown.setdefault(product, []).append(folder / f"{product}-{number}.png")
            Image.fromarray(pixels).save(shown[product][-1])
    out = []
    for number, case in enumerate(cases):
        path = shown[case.truth.product][number % 10]
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        task = dataclasses.replace(
            case.recipe, references=(path,), reference_sha256=(sha256,), task_version=sha256[:16]
        )
        out.append(dataclasses.replace(case, recipe=task))
    return out


def _without_rules(case: Case) -> Case:
    bare = dataclasses.replace(
        case.recipe, rules=(), references=(), reference_sha256=(), task_version="bare"
    )
    return dataclasses.replace(
        case, recipe=dataclasses.replace(bare, task_version=f"bare-{case.truth.product}")
    )


def _anomalous(task: Recipe, facts: Facts) -> bool:
    return any(not c.ok for c in rationale.clauses(task.product, task.rules, facts))


def _difference(task: Recipe, facts: Facts) -> int:
    forms = [rationale.read_rule(rule.text) for rule in task.rules]
    return max(
        abs(int(rationale.clause("R1", form, facts).observed) - form.number)
        for form in forms
        if isinstance(form, Count)
    )


def _plain(truth: Truth, anomalous: bool, score: float) -> Judged:
    result = "NotOK" if anomalous else "OK"
    return Judged(truth, anomalous, score, result, None, True, "unchecked")


def _always(cases: Sequence[Case], answer: bool) -> list[Judged]:
    return [_plain(case.truth, answer, 0.5) for case in cases]


def _blobs(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Number and area of connected regions in six hues and the greys."""
    hsv = cv2.cvtColor(cv2.GaussianBlur(np.asarray(image), (0, 0), 1.2), cv2.COLOR_RGB2HSV)
    bright = hsv[..., 1] > 90
    masks = [bright & (hsv[..., 0] // 30 == hue) for hue in range(6)]
    grey = hsv[..., 2].astype(np.int16)
    masks.append(np.abs(grey - int(np.median(grey))) > 35)
    out = []
    for mask in masks:
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        areas = stats[1:, cv2.CC_STAT_AREA]
        large = areas[areas >= 25]
        out += [float(len(large)), float(np.sqrt(large.sum()))]
    return np.array(out)


def _blob_limits(pictures: Sequence[Image.Image]) -> tuple[Any, Any]:
    found = np.stack([_blobs(picture) for picture in pictures])
    return np.median(found, axis=0), found.std(axis=0) + 1.0


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}%"


if __name__ == "__main__":
    main()
