"""Rules for training: in random order, with values that the picture does not give away.

A model that always meets rules which agree with the picture lists what the rules say. So half the
rules of half the prompts are drawn without a look at the picture, from all that the form allows.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from lad_agent import rationale
from lad_agent.rationale import Count, Equal, Facts, Fit, Form, Value
from lad_agent.recipe import Rule
from lad_agent.training import synloco
from lad_agent.training.pocket.vocabulary import ATTRIBUTES

MOST_WANTED = 6
ALL_TRUE, ONE_OFF, HOLDS = 0.1, 0.2, 0.35
"""Shares of prompts whose rules all hold, and all but one or two; how likely each holds in the
rest.

The more often rules hold, the more a number that a rule wants speaks for that number. Where 66%
held, a model that saw no damage said 1 of 1 under a rule of 1 and 2 of 2 under a rule of 2, 21
times of 22.
"""
FIT_WEIGHT = 3
"""How much likelier a pairing is the one that is off than a count: it is a look-up in the rule's
own table, the last thing that is learned."""
PAIRINGS, MOST_PAIRINGS = 0.5, 5
"""Share of prompts, of products with attributes, whose rules pair any of these by drawn tables.

A model that meets the shipped tables alone learns to repeat what it sees, and never to look it up:
after 5,200 steps it had followed 15 of 188 drawn tables that did not hold.
"""
OTHER_PAIRS = 0.5
"""Share of the pairings among other rules that pair any two attributes by a drawn table."""
NEXT_TO_IT = 0.7
"""Share of the wrong numbers that are one off, or where there is nothing 2 now and then.

Among numbers drawn at large "rule 1, picture 0" is ten times rarer than "rule 1, picture 1": a
model of such prompts lists a part that a rule names and the picture lacks. Where nothing was off by
1 alone, a rule of 2 damaged places spoke for damage, and was repeated.
"""


def for_picture(rng: np.random.Generator, facts: Facts) -> tuple[str, list[Rule]]:
    """Product and rules of a prompt about a picture; 5% are prompts of another product."""
    product = facts.product
    if product not in synloco.PRODUCTS or rng.random() < 0.05:
        product = str(rng.choice(synloco.PRODUCTS))
    return product, mixed(rng, forms(product), facts, ATTRIBUTES)


def mixed(
    rng: np.random.Generator,
    all_forms: Sequence[Form],
    facts: Facts,
    values: Mapping[str, Sequence[str]],
) -> list[Rule]:
    """Rules of the given forms about a picture, all or some of them, of which some do not hold.

    `values` are those that each attribute can take.
    """
    names = attributes(all_forms)
    if len(names) > 1 and rng.random() < PAIRINGS:
        return _numbered(_pairings(rng, names, facts, values))
    order = rng.permutation(len(all_forms))
    if rng.random() < 0.5:
        order = np.sort(order)
    if rng.random() < 0.3:
        order = order[: int(rng.integers(1, len(order) + 1))]
    kept = [all_forms[i] for i in order]
    true = _which_hold(rng, kept)
    chosen: list[Form] = []
    told = {(form.subject, form.other) for form in kept if isinstance(form, Fit | Equal)}
    for form, holds in zip(kept, true, strict=True):
        if (
            isinstance(form, Fit)
            and (free := [pair for pair in permutations(names, 2) if pair not in told])
            and rng.random() < OTHER_PAIRS
        ):
            pair = free[int(rng.integers(len(free)))]
            told.add(pair)
            chosen.append(paired(rng, *pair, facts, values, holds))
        else:
            chosen.append(holding(form, facts, rng) if holds else _drawn(form, facts, rng, values))
    return _numbered(chosen)


def forms(product: str) -> list[Form]:
    """The forms of the shipped rules, every noun in the plural of its class."""
    out: list[Form] = []
    for _, text in synloco.rules(product):
        form = rationale.read_rule(text)
        if form is None:
            raise ValueError(f"{product}: {text!r} follows no known form")
        if isinstance(form, Count):
            noun = next(n for n in synloco.classes(product) if rationale.same_noun(n, form.noun))
            form = Count(noun, form.number)
        out.append(form)
    return out


def shipped(product: str) -> list[Rule]:
    """The rules of the product's shipped recipe."""
    return [Rule(id=rule_id, text=text) for rule_id, text in synloco.rules(product)]


def subjects(product: str) -> list[str]:
    """What captions tell of a product's pictures: the nouns of its rules, then its attributes."""
    nouns = [form.noun for form in forms(product) if isinstance(form, Count)]
    return [*nouns, *synloco.attributes(product)]


def _numbered(chosen: Sequence[Form]) -> list[Rule]:
    return [Rule(id=f"R{n}", text=rationale.write_rule(form)) for n, form in enumerate(chosen, 1)]


def attributes(all_forms: Sequence[Form]) -> list[str]:
    """The attributes that rules of these forms tell of, each once."""
    found: dict[str, None] = {}
    for form in all_forms:
        match form:
            case Value(subject, _):
                found[subject] = None
            case Fit(subject, other, _) | Equal(subject, other):
                found |= {subject: None, other: None}
    return list(found)


def _pairings(
    rng: np.random.Generator,
    names: Sequence[str],
    facts: Facts,
    values: Mapping[str, Sequence[str]],
) -> list[Form]:
    pairs = [(one, two) for one in names for two in names if one != two]
    size = min(len(pairs), int(rng.integers(1, MOST_PAIRINGS + 1)))
    return [
        paired(rng, pairs[i][0], pairs[i][1], facts, values, holds=bool(rng.random() < 0.5))
        for i in rng.choice(len(pairs), size=size, replace=False)
    ]


def paired(
    rng: np.random.Generator,
    subject: str,
    other: str,
    facts: Facts,
    values: Mapping[str, Sequence[str]],
    holds: bool,
) -> Fit:
    """A value of `subject` drawn for each of `other`; it holds where the picture allows either."""
    named, keys = ([v for v in values[n] if v != rationale.NOTHING] for n in (subject, other))
    table = {str(key): str(rng.choice(named)) for key in rng.permutation(keys)}
    seen, key = (facts.attributes.get(name, rationale.NOTHING) for name in (subject, other))
    if key in table and seen in named:
        table[key] = seen if holds else str(rng.choice([v for v in named if v != seen] or [seen]))
    return Fit(subject, other, tuple((value, key) for key, value in table.items()))


def _which_hold(rng: np.random.Generator, kept: Sequence[Form]) -> Sequence[bool]:
    draw, count = rng.random(), len(kept)
    if draw < ALL_TRUE:
        return [True] * count
    if draw < ALL_TRUE + ONE_OFF:
        weights = np.array([FIT_WEIGHT if isinstance(form, Fit) else 1 for form in kept])
        size = min(count, int(rng.integers(1, 3)))
        wrong = rng.choice(count, size=size, replace=False, p=weights / weights.sum())
        return [i not in wrong for i in range(count)]
    coins: list[bool] = (rng.random(count) < HOLDS).tolist()
    return coins


def holding(form: Form, facts: Facts, rng: np.random.Generator) -> Form:
    match form:
        case Count(noun, _):
            return Count(noun, len(facts.places.get(noun, ())))
        case Value(subject, value):
            return Value(subject, facts.attributes.get(subject, value))
        case Fit(subject, other, pairs):
            seen = facts.attributes.get(subject)
            key = facts.attributes.get(other)
            values = [value for value, _ in pairs]
            if seen not in values or key not in [k for _, k in pairs]:
                return shuffled(form, rng)
            rest = [value for value in values if value != seen]
            rng.shuffle(rest)
            fitting = [(seen if k == key else rest.pop(), k) for _, k in pairs]
            return Fit(subject, other, tuple(fitting))
        case Equal():
            return form


def _drawn(
    form: Form, facts: Facts, rng: np.random.Generator, values: Mapping[str, Sequence[str]]
) -> Form:
    match form:
        case Count(noun, _):
            true = len(facts.places.get(noun, ()))
            others = [n for n in range(MOST_WANTED + 1) if n != true]
            if rng.random() < NEXT_TO_IT:
                near = [n for n in others if abs(n - true) == 1] if true else [1, 1, 2]
                others = near or others
            return Count(noun, int(rng.choice(others)))
        case Value(subject, _):
            seen = facts.attributes.get(subject)
            named = [v for v in values[subject] if v != rationale.NOTHING]
            values_left = [v for v in named if v != seen]
            return Value(subject, str(rng.choice(values_left or named)))
        case Fit(subject, other, pairs):
            seen = facts.attributes.get(subject)
            key = facts.attributes.get(other)
            off = shuffled(form, rng)
            if key in [k for _, k in pairs] and len({value for value, _ in pairs}) > 1:
                while off.wanted(str(key)) == seen:
                    off = shuffled(form, rng)
            return off
        case Equal():
            return form


def shuffled(form: Fit, rng: np.random.Generator) -> Fit:
    """The same pairing with its values in another order."""
    values = [value for value, _ in form.pairs]
    rng.shuffle(values)
    return Fit(
        form.subject,
        form.other,
        tuple((value, key) for value, (_, key) in zip(values, form.pairs, strict=True)),
    )
