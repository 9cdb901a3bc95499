"""The one grammar of rules and rationales: written for training, read for evidence.

A rule that follows one of four forms can be recomputed from what a rationale claims:

    exactly 2 washers                                        count
    fill level is normal                                     value
    icon fits liquid: cherry for red, orange for orange      fit
    right clamps equal left clamps                           equality

A rationale is clauses joined by `; `, the first naming the product seen, then one a rule:

    product: screw bag of screw bag ok; R1 washers at B2, D4: 2 of 2 ok; R2 nuts: 0 of 2 bad
    R3 liquid red fits cherry, icon orange: orange of cherry bad

Each clause ends in `observed of wanted ok|bad`. Rules in other words are allowed: their clauses
cannot be recomputed and are recorded as unchecked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lad_agent.cells import CELLS
from lad_agent.judgement import Evidence
from lad_agent.recipe import Rule

NOTHING = "none"
"""The value of an attribute that cannot be seen, and the product of a picture of nothing."""


@dataclass(frozen=True)
class Count:
    """`exactly <number> <noun>`"""

    noun: str
    number: int


@dataclass(frozen=True)
class Value:
    """`<subject> is <value>`"""

    subject: str
    value: str


@dataclass(frozen=True)
class Fit:
    """`<subject> fits <other>: <value> for <other value>, ...`"""

    subject: str
    other: str
    pairs: tuple[tuple[str, str], ...]

    def wanted(self, other: str) -> str:
        """The value that goes with `other`, `none` where the rule names none."""
        return next((value for value, key in self.pairs if key == other), NOTHING)


@dataclass(frozen=True)
class Equal:
    """`<subject> equal <other>` or `<subject> equals <other>`"""

    subject: str
    other: str


Form = Count | Value | Fit | Equal


@dataclass(frozen=True)
class Facts:
    """What is in a picture, whatever the rules say.

    `product` with underscores; `places` maps a plural noun to the cells of its parts, one entry a
    part; `attributes` maps a subject to its value.
    """

    product: str
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clause:
    """One statement of a rationale; `rule` is None in the clause that names the product."""

    rule: str | None
    subject: str
    places: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    observed: str
    wanted: str
    ok: bool
    fits: str | None = None
    """What the clause of a pairing says to go with its key, before it tells what is seen: a small
    model looks up what stands right behind its key, and nothing else."""

    def __str__(self) -> str:
        head = f"{self.rule} " if self.rule else ""
        if self.fits is not None:
            (subject, seen), (other, key) = self.values
            head += f"{other} {key} fits {self.fits}, {subject} {seen}"
        elif self.values:
            head += ", ".join(f"{subject} {value}" for subject, value in self.values)
        else:
            head += self.subject
        head += at(self.places)
        return f"{head}: {self.observed} of {self.wanted} {'ok' if self.ok else 'bad'}"


def read_rule(text: str) -> Form | None:
    """The form of a rule, or None where its words follow none of the four."""
    plain = text.strip().rstrip(".").lower()
    if m := re.fullmatch(r"exactly (\d{1,3}) ([a-z][a-z -]*)", plain):
        return Count(m[2], int(m[1]))
    if m := re.fullmatch(r"([a-z][a-z ]*?) fits ([a-z][a-z ]*): (.+)", plain):
        pairs = [re.fullmatch(r"([a-z0-9-]+) for ([a-z0-9-]+)", p) for p in m[3].split(", ")]
        if all(pairs):
            return Fit(m[1], m[2], tuple((p[1], p[2]) for p in pairs if p))
        return None
    if m := re.fullmatch(r"([a-z][a-z ]*?) equals? ([a-z][a-z ]*)", plain):
        return Equal(m[1], m[2])
    if m := re.fullmatch(r"([a-z][a-z ]*?) is ([a-z0-9-]+)", plain):
        return Value(m[1], m[2])
    return None


def write_rule(form: Form) -> str:
    """The words of a rule; the inverse of `read_rule`, with the noun in singular for one.

    >>> write_rule(Count("long screws", 1))
    'exactly 1 long screw'
    """
    match form:
        case Count(noun, number):
            return f"exactly {number} {_singular(noun) if number == 1 else noun}"
        case Value(subject, value):
            return f"{subject} is {value}"
        case Fit(subject, other, pairs):
            return f"{subject} fits {other}: " + ", ".join(f"{v} for {k}" for v, k in pairs)
        case Equal(subject, other):
            return f"{subject} equal {other}"


def product_clause(seen: str, wanted: str) -> Clause:
    """The clause that names what the picture shows."""
    a, b = seen.replace("_", " "), wanted.replace("_", " ")
    return Clause(None, "product", (), (), a, b, a == b)


def clause(rule_id: str, form: Form, facts: Facts) -> Clause:
    """What is true of `facts` under one rule."""
    match form:
        case Count(noun, number):
            plural = next((n for n in facts.places if same_noun(n, noun)), noun)
            cells = tuple(sorted(facts.places.get(plural, ()), key=CELLS.index))
            n = len(cells)
            return Clause(rule_id, plural, cells, (), str(n), str(number), n == number)
        case Value(subject, value):
            seen = facts.attributes.get(subject, NOTHING)
            return Clause(rule_id, subject, (), (), seen, value, seen == value)
        case Fit(subject, other, _):
            seen = facts.attributes.get(subject, NOTHING)
            key = facts.attributes.get(other, NOTHING)
            wanted = form.wanted(key)
            values = ((subject, seen), (other, key))
            return Clause(rule_id, subject, (), values, seen, wanted, seen == wanted, wanted)
        case Equal(subject, other):
            seen = facts.attributes.get(subject, NOTHING)
            key = facts.attributes.get(other, NOTHING)
            values = ((subject, seen), (other, key))
            return Clause(rule_id, subject, (), values, seen, key, seen == key)


def clauses(product: str, rules: Sequence[Rule], facts: Facts) -> list[Clause]:
    """The true rationale of a picture for a recipe whose rules all follow a known form.

    Where the picture shows another product only the product's clause is given.

    Raises:
        ValueError: a rule follows no known form.
    """
    first = product_clause(facts.product, product)
    if not first.ok:
        return [first]
    out = [first]
    for rule in rules:
        form = read_rule(rule.text)
        if form is None:
            raise ValueError(f"rule {rule.id} follows no known form: {rule.text!r}")
        out.append(clause(rule.id, form, facts))
    return out


def write(statements: Sequence[Clause]) -> str:
    """The rationale's text."""
    return "; ".join(str(statement) for statement in statements)


_CELL = r"[A-J]\d{1,2}"
_CLAUSE = re.compile(
    rf"(?:(?P<rule>R\d{{1,3}}) )?(?P<head>[a-z][a-z0-9 ,-]*?)"
    rf"(?: at (?P<cells>{_CELL}(?:, {_CELL})*))?"
    r": (?P<claim>[A-Za-z0-9][A-Za-z0-9 -]* of [A-Za-z0-9][A-Za-z0-9 -]*) (?P<end>ok|bad)"
)

HOLDS = "every rule holds, as in the reference"
"""What a label says of a good picture of which no more is known."""
_LABEL = re.compile(
    rf"(?:(?P<rule>R\d{{1,3}})|a rule) is broken(?:: [^;]*?)?"
    rf"(?: at (?P<cells>{_CELL}(?:, {_CELL})*))?"
)


def at(places: Sequence[str]) -> str:
    """Where something is, as it stands behind its name.

    >>> at(["B2", "D4"]), at([])
    (' at B2, D4', '')
    """
    return " at " + ", ".join(places) if places else ""


def _cells(named: str | None) -> tuple[str, ...] | None:
    """The cells that a text lists; None where one lies outside the grid."""
    cells = tuple(named.split(", ")) if named else ()
    return cells if all(cell in CELLS for cell in cells) else None


def read(text: str) -> list[Clause] | None:
    """The clauses of a rationale, or None where any of it follows another grammar."""
    out = []
    for part in text.strip().split("; "):
        m = _CLAUSE.fullmatch(part)
        if m is None:
            return None
        cells = _cells(m["cells"])
        if cells is None:
            return None
        values: tuple[tuple[str, str], ...] = ()
        head, fits = m["head"], None
        if ", " in head:
            first, *rest = head.split(", ")
            if paired := re.fullmatch(r"(.+) fits (\S+)", first):
                first, fits = paired[1], paired[2]
            named = [piece.rpartition(" ") for piece in (first, *rest)]
            if not all(name for name, _, _ in named) or (fits and len(named) != 2):
                return None
            values = tuple((name, value) for name, _, value in named[:: -1 if fits else 1])
            head = values[0][0]
        sides, ok = _sides(m["claim"]), m["end"] == "ok"
        out.append(Clause(m["rule"], head, cells, values, *sides, ok, fits))
    return out


def check_evidence(
    text: str, anomalous: bool, product: str, rules: Sequence[Rule]
) -> tuple[Evidence, str | None]:
    """Recompute what a rationale claims: list, count, the recipe's rule, verdict.

    Returns `consistent`, or `contradicted` with the first contradiction in words, or `unchecked`
    with why. It never yields a verdict of its own.
    """
    statements = read(text)
    if statements is None:
        return _check_label(text, anomalous, rules)
    forms = {rule.id: read_rule(rule.text) for rule in rules}
    unread = [rule_id for rule_id, form in forms.items() if form is None]
    first = statements[0]
    if first.rule is not None or first.subject != "product":
        return "unchecked", "the rationale names no product"
    wrong = _product_fault(first, product)
    if wrong:
        return "contradicted", wrong
    if first.ok:
        named = [statement.rule for statement in statements[1:]]
        if named != list(forms):
            return "contradicted", f"clauses {named} do not follow the rules {list(forms)}"
        for statement in statements[1:]:
            form = forms[statement.rule or ""]
            wrong = _clause_fault(statement, form) if form is not None else None
            if wrong:
                return "contradicted", f"{statement.rule}: {wrong}"
    bad = [s for s in statements if not s.ok]
    if bool(bad) != anomalous:
        return "contradicted", f"{len(bad)} bad clauses, but the answer says {_word(anomalous)}"
    if unread and first.ok:
        return "unchecked", f"rule {unread[0]} follows no known form"
    return "consistent", None


def _check_label(text: str, anomalous: bool, rules: Sequence[Rule]) -> tuple[Evidence, str | None]:
    """A label's words can only contradict."""
    broken = _LABEL.fullmatch(text.strip())
    if broken and broken["rule"] and broken["rule"] not in {rule.id for rule in rules}:
        return "contradicted", f"{broken['rule']} is no rule of the recipe"
    if broken and not anomalous:
        return "contradicted", "a rule is said to be broken, but the answer says no"
    if text.strip() == HOLDS and anomalous:
        return "contradicted", "every rule is said to hold, but the answer says yes"
    return "unchecked", "the rationale follows another grammar"


def said_bad(text: str) -> list[str]:
    """The statements that say a rule is broken, as they are written, whatever the grammar.

    >>> said_bad("R1 nuts at B2: 1 of 2 bad; R2 washers at C1: 1 of 1 ok")
    ['R1 nuts at B2: 1 of 2 bad']
    """
    return [statement for statement in text.split("; ") if statement.endswith(" bad")]


def write_label(rule: str | None, cause: str | None, places: Sequence[str]) -> str:
    """What a label says that knows no more than this of an anomalous picture.

    >>> write_label("R2", "missing nut", ["C3"])
    'R2 is broken: missing nut at C3'
    >>> write_label(None, None, [])
    'a rule is broken'
    """
    return f"{rule or 'a rule'} is broken{f': {cause}' if cause else ''}{at(places)}"


def named_fault(text: str) -> tuple[str | None, tuple[str, ...]]:
    """Rule and places of the first bad clause, or of what a label says; (None, ()) where the
    rationale names none."""
    for statement in read(text) or ():
        if not statement.ok and statement.rule:
            return statement.rule, statement.places
    told = _LABEL.fullmatch(text.strip())
    if told is None:
        return None, ()
    return told["rule"], _cells(told["cells"]) or ()


def seen_product(text: str) -> str | None:
    """The product that a rationale says it sees instead of the wanted one, else None."""
    statements = read(text)
    if not statements or statements[0].subject != "product" or statements[0].ok:
        return None
    return statements[0].observed.replace(" ", "_")


def same_noun(a: str, b: str) -> bool:
    """Whether two nouns agree but for the plural."""
    return _stem(a) == _stem(b)


_PLURAL = re.compile(r"(?:(?<=ss|ch|sh)es|(?<=x)es|(?<!s)s)$")
"""The ending that a noun has for two and not for one: glasses, boxes, nuts, but not glass."""


def _stem(noun: str) -> str:
    return " ".join(_PLURAL.sub("", word) for word in noun.split())


def _singular(noun: str) -> str:
    head, *rest = re.split(r"( on | in | of )", noun, maxsplit=1)
    return _PLURAL.sub("", head) + "".join(rest)


def _word(anomalous: bool) -> str:
    return "yes" if anomalous else "no"


def _sides(claim: str) -> tuple[str, str]:
    """Observed and wanted of `observed of wanted`; a product's name may hold an `of` itself."""
    words = claim.split(" of ")
    pairs = [(" of ".join(words[:n]), " of ".join(words[n:])) for n in range(1, len(words))]
    return next((pair for pair in pairs if pair[0] == pair[1]), pairs[0])


def _product_fault(first: Clause, product: str) -> str | None:
    if first.wanted != product.replace("_", " "):
        return f"the recipe is for {product}, the rationale says {first.wanted}"
    if first.ok != (first.observed == first.wanted):
        word = "ok" if first.ok else "bad"
        return f"product: {first.observed} of {first.wanted} is called {word}"
    return None


def _clause_fault(said: Clause, form: Form) -> str | None:
    match form:
        case Count(noun, number):
            if not same_noun(said.subject, noun) or said.values:
                return f"the rule is about {noun}, the rationale about {said.subject}"
            if str(len(said.places)) != said.observed:
                return f"{len(said.places)} places listed, {said.observed} counted"
            wanted = str(number)
        case Value(subject, value):
            if said.subject != subject or said.values or said.places:
                return f"the rule is about {subject}, the rationale about {said.subject}"
            wanted = value
        case Fit(subject, other, _) | Equal(subject, other):
            if [name for name, _ in said.values] != [subject, other]:
                return f"the rule is about {subject} and {other}"
            if said.values[0][1] != said.observed:
                return f"{said.values[0][1]} named, {said.observed} counted"
            key = said.values[1][1]
            wanted = form.wanted(key) if isinstance(form, Fit) else key
            if said.fits not in (None, wanted):
                return f"the recipe pairs {key} with {wanted}, the rationale with {said.fits}"
    if said.wanted != wanted:
        return f"the recipe wants {wanted}, the rationale says {said.wanted}"
    if said.ok != (said.observed == said.wanted):
        return f"{said.observed} of {said.wanted} is called {'ok' if said.ok else 'bad'}"
    return None
