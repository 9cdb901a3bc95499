"""Does the verdict follow the rule? The same picture under two recipes that differ in one rule.

    python -m benchmarks.counterfactual [--count 1000] [--model DIR] [--out FILE] [--jobs N]

Pictures of seeds that no training used, an equal share of every product. Of two recipes exactly
one holds: a good part's own recipe, and the same with one rule that it breaks (3 washers wanted of
a bag with 2, another pairing); or a faulty part's own recipe, and the same with the broken rule as
the part is. A pair flips rightly where both verdicts are right; judged as `lad-agent inspect` does.
"""

import argparse
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.figures import SEED, Case, judge, picture, reasoners, with_rules
from lad_agent import rationale, recipe
from lad_agent.rationale import NOTHING, Count, Equal, Facts, Fit, Form, Value
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.recipe import Recipe, Rule
from lad_agent.training import synloco
from lad_agent.training.evaluation import Judged
from lad_agent.training.pocket import rules as random_rules

OFFSET = 23
"""Of the seed: pictures of its own."""
FARTHEST = 3
"""By how much a good part's counted rule is changed at most."""
FAR = 2
"""A part this far off its rule must not pass."""
KINDS: dict[type, str] = {Count: "count", Value: "value", Fit: "pairing"}


@dataclass(frozen=True)
class Pair:
    """A picture under a recipe that holds and under one that does not; `difference` is how far
    the counted rule is off, None for values and pairings."""

    product: str
    kind: str
    difference: int | None
    holds: Case
    broken: Case


@dataclass(frozen=True)
class Flip:
    """A pair with both its verdicts."""

    pair: Pair
    holds: Judged
    broken: Judged

    @property
    def rightly(self) -> bool:
        return self.holds.right and self.broken.right


def main() -> None:
    parser = argparse.ArgumentParser(description="Does the verdict follow the rule?")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    each = -(-options.count // len(synloco.PRODUCTS))
    made = [pair for product in synloco.PRODUCTS for pair in pairs(product, each)]
    with reasoners(options.model, options.jobs) as judges:
        found = figures(flips(judges, made))
    print(markdown(found))
    if options.out:
        told = {"model": fingerprint(options.model), **found}
        options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def pairs(product: str, count: int) -> list[Pair]:
    """Pairs of one product, good and faulty parts by turns, changed rules by turns."""
    task = recipe.load(recipe.shipped(product))
    changed: Counter[str] = Counter()
    out: list[Pair] = []
    index = 0
    while len(out) < count:
        kind: synloco.Kind = "logical" if len(out) % 2 else "normal"
        case = picture(task, "train", SEED + OFFSET, index, kind)
        rng = np.random.default_rng([SEED, OFFSET, index])
        index += 1
        broken = [c.rule for c in _clauses(task, case.facts) if not c.ok]
        if not broken:
            rule = _least(task, changed)
            other = _changed(task, rule, _off(rng, _form(rule, case.facts), case.facts))
        elif len(broken) == 1:
            rule = next(r for r in task.rules if r.id == broken[0])
            as_it_is = random_rules.holding(_form(rule, case.facts), case.facts, rng)
            other = _changed(task, rule, as_it_is)
        else:
            continue
        # A rule of equality has no other version; a picture without an icon fits no pairing.
        if bool(broken) == _breaks(other, case.facts):
            continue
        changed[rule.id] += 1
        ends = [_under(case, judged_by) for judged_by in (task, other)]
        holds, bad = reversed(ends) if broken else ends
        form = _form(next(r for r in bad.recipe.rules if r.id == rule.id), case.facts)
        out.append(Pair(product, KINDS[type(form)], _difference(form, case.facts), holds, bad))
    return out


def flips(judges: Executor, made: Sequence[Pair]) -> list[Flip]:
    """Both sides of every pair judged."""
    holds, _ = judge(judges, [pair.holds for pair in made], "rules hold")
    broken, _ = judge(judges, [pair.broken for pair in made], "one is broken")
    return [Flip(*one) for one in zip(made, holds, broken, strict=True)]


def figures(judged: Sequence[Flip]) -> dict[str, Any]:
    """Shares of all pairs, and by product and kind of rule; each with its Wilson interval."""
    groups = {("all", "all"): list(judged)}
    for flip in judged:
        groups.setdefault((flip.pair.product, flip.pair.kind), []).append(flip)
    far = [f for f in judged if f.pair.difference is not None and f.pair.difference >= FAR]
    return {
        "rows": [
            {
                "product": product,
                "kind": kind,
                "flips_rightly": _share(group, lambda f: f.rightly),
                "right_where_it_holds": _share(group, lambda f: f.holds.right),
                "right_where_it_is_broken": _share(group, lambda f: f.broken.right),
                "passed_though_broken": _share(group, _passed),
            }
            for (product, kind), group in groups.items()
        ],
        "passed_far_off": _share(far, _passed),
    }


def markdown(found: dict[str, Any]) -> str:
    """A row a product and kind of rule, and what passed far off its rule."""
    names = (
        "flips_rightly", "right_where_it_holds", "right_where_it_is_broken", "passed_though_broken"
    )  # fmt: skip
    heads = ("product", "rule", "pairs", "flips rightly", "right: holds", "right: broken", "passed")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in found["rows"]:
        first, *rest = (row[name] for name in names)
        cells = [row["product"], row["kind"], str(first["n"]), _told(first)]
        cells += [f"{share['share']:.3f}" for share in rest]
        lines.append("| " + " | ".join(cells) + " |")
    far = found["passed_far_off"]
    return "\n".join(
        [*lines, "", f"Off by {FAR} or more: {far['k']} of {far['n']} passed, {_told(far)}."]
    )


def _clauses(task: Recipe, facts: Facts) -> list[rationale.Clause]:
    return rationale.clauses(task.product, task.rules, facts)


def _breaks(task: Recipe, facts: Facts) -> bool:
    return any(not clause.ok for clause in _clauses(task, facts))


def _form(rule: Rule, facts: Facts) -> Form:
    """The form of a rule, its noun in the plural."""
    form = rationale.read_rule(rule.text)
    assert form is not None  # the shipped rules follow the forms
    if isinstance(form, Count):
        noun = next(n for n in facts.places if rationale.same_noun(n, form.noun))
        form = Count(noun, form.number)
    return form


def _least(task: Recipe, changed: Counter[str]) -> Rule:
    """Of the rules that have another version the one that was changed least often."""
    able = [r for r in task.rules if not isinstance(rationale.read_rule(r.text), Equal)]
    return min(able, key=lambda rule: changed[rule.id])


def _off(rng: np.random.Generator, form: Form, facts: Facts) -> Form:
    """A version of the rule that the picture breaks."""
    match form:
        case Count(noun, number):
            near = [n for n in range(number - FARTHEST, number + FARTHEST + 1) if n >= 0]
            return Count(noun, int(rng.choice([n for n in near if n != number])))
        case Value(subject, value):
            known = synloco.attributes(facts.product)[subject]
            return Value(subject, str(rng.choice([v for v in known if v not in (value, NOTHING)])))
        case Fit(subject, other, told):
            values = [value for value, _ in told]
            turn = int(rng.integers(1, len(values)))
            turned = values[turn:] + values[:turn]
            keys = [key for _, key in told]
            return Fit(subject, other, tuple(zip(turned, keys, strict=True)))
        case Equal():
            return form


def _changed(task: Recipe, rule: Rule, form: Form) -> Recipe:
    new = Rule(id=rule.id, text=rationale.write_rule(form))
    return with_rules(task, [new if r.id == rule.id else r for r in task.rules])


def _under(case: Case, task: Recipe) -> Case:
    truth = dataclasses.replace(case.truth, anomalous=_breaks(task, case.facts))
    return dataclasses.replace(case, recipe=task, truth=truth)


def _difference(form: Form, facts: Facts) -> int | None:
    if not isinstance(form, Count):
        return None
    return abs(int(rationale.clause("R1", form, facts).observed) - form.number)


def _passed(flip: Flip) -> bool:
    return flip.broken.result == "OK"


def _share(group: Sequence[Flip], holds: Callable[[Flip], bool]) -> dict[str, Any]:
    """How many of a group, and what share with Wilson's 95% interval."""
    n, k = len(group), sum(map(holds, group))
    if not n:
        return {"n": 0, "k": 0, "share": None, "interval": None}
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    return {"n": n, "k": k, "share": k / n, "interval": [float(low), float(high)]}


def _told(share: dict[str, Any]) -> str:
    if share["interval"] is None:
        return "none"
    low, high = share["interval"]
    return f"{share['share']:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    main()
