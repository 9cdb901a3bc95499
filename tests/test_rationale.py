"""The grammar of rules and rationales: round trips, and every changed claim is noticed."""

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lad_agent import rationale
from lad_agent.cells import CELLS
from lad_agent.rationale import Clause, Count, Equal, Facts, Fit, Value
from lad_agent.recipe import Rule

NAMES = st.from_regex(r"[a-z]{2,7}( [a-z]{2,7}){0,2}", fullmatch=True).filter(
    lambda name: not {"fits", "equal", "equals", "is", "exactly", "of", "at"} & set(name.split())
)
VALUES = st.from_regex(r"[a-z][a-z0-9-]{0,7}", fullmatch=True)
PRODUCTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
PLACES = st.lists(st.sampled_from(CELLS), max_size=6)


@st.composite
def fits(draw: st.DrawFn) -> Fit:
    keys = draw(st.lists(VALUES, min_size=1, max_size=3, unique=True))
    subject, other = draw(st.lists(NAMES, min_size=2, max_size=2, unique=True))
    return Fit(subject, other, tuple((draw(VALUES), key) for key in keys))


@st.composite
def equals(draw: st.DrawFn) -> Equal:
    return Equal(*draw(st.lists(NAMES, min_size=2, max_size=2, unique=True)))


COUNTS = st.builds(Count, NAMES.map(lambda n: f"{n}s"), st.integers(0, 15))
FORMS = st.one_of(COUNTS, st.builds(Value, NAMES, VALUES), fits(), equals())


@st.composite
def inspections(draw: st.DrawFn) -> tuple[str, list[Rule], Facts]:
    """A product, its rules, and what is in a picture of it, half of it as the rules want it."""
    forms = draw(st.lists(FORMS, min_size=1, max_size=4))
    rules = [Rule(id=f"R{n}", text=rationale.write_rule(f)) for n, f in enumerate(forms, 1)]
    places: dict[str, list[str]] = {}
    attributes: dict[str, str] = {}
    for form in forms:
        match form:
            case Count(noun, number):
                right = draw(st.lists(st.sampled_from(CELLS), min_size=number, max_size=number))
                places[noun] = draw(st.one_of(st.just(right), PLACES))
            case Value(subject, value):
                attributes[subject] = draw(st.one_of(st.just(value), VALUES))
            case Fit(subject, other, pairs):
                value, key = draw(st.sampled_from(pairs))
                attributes[subject] = draw(st.one_of(st.just(value), VALUES))
                attributes[other] = draw(st.one_of(st.just(key), VALUES))
            case Equal(subject, other):
                attributes[subject] = draw(VALUES)
                attributes[other] = draw(st.one_of(st.just(attributes[subject]), VALUES))
    product = draw(PRODUCTS)
    seen = draw(st.sampled_from([product, product, product, "none", "juice_bottle"]))
    return product, rules, Facts(seen, places, attributes)


def evidence(clauses: list[Clause], anomalous: bool, product: str, rules: list[Rule]) -> str:
    text = rationale.write(clauses)
    return rationale.check_evidence(text, anomalous, product, rules)[0]


@given(FORMS)
def test_a_rule_is_read_as_it_was_written(form):
    back = rationale.read_rule(rationale.write_rule(form))
    if isinstance(form, Count):
        assert isinstance(back, Count)
        assert back.number == form.number
        assert rationale.same_noun(back.noun, form.noun)
    else:
        assert back == form


@pytest.mark.parametrize(
    ("nouns", "noun"),
    [("glasses", "glass"), ("boxes", "box"), ("latches", "latch"), ("nuts", "nut")],
)
def test_one_of_a_noun_is_written_without_the_plural(nouns, noun):
    assert rationale.write_rule(Count(nouns, 1)) == f"exactly 1 {noun}"
    assert rationale.same_noun(nouns, noun)
    assert rationale.write_rule(Count(noun, 1)) == f"exactly 1 {noun}"


@given(inspections())
def test_a_rationale_is_read_as_it_was_written(inspection):
    clauses = rationale.clauses(*inspection)
    assert rationale.read(rationale.write(clauses)) == clauses


@given(inspections())
def test_a_true_rationale_is_consistent_with_its_verdict_only(inspection):
    product, rules, facts = inspection
    clauses = rationale.clauses(product, rules, facts)
    anomalous = any(not clause.ok for clause in clauses)
    assert evidence(clauses, anomalous, product, rules) == "consistent"
    assert evidence(clauses, not anomalous, product, rules) == "contradicted"


@given(inspections(), st.data())
def test_every_changed_claim_is_noticed(inspection, data):
    product, rules, facts = inspection
    clauses = rationale.clauses(product, rules, facts)
    anomalous = any(not clause.ok for clause in clauses)
    at = data.draw(st.integers(0, len(clauses) - 1))
    changed = data.draw(st.sampled_from(list(_changes(clauses[at], data))))
    assume(changed != clauses[at])
    clauses[at] = changed
    assert evidence(clauses, anomalous, product, rules) == "contradicted"


def _changes(clause: Clause, data: st.DataObject) -> list[Clause]:
    """The clause with one claim changed: verdict, count, wanted, number of places, what is seen."""
    change = dataclasses.replace
    other = data.draw(st.one_of(st.integers(0, 15).map(str), VALUES))
    changes = [change(clause, ok=not clause.ok), change(clause, wanted=other)]
    if clause.ok or clause.values or clause.places:
        changes.append(change(clause, observed=other))
    if clause.rule and not clause.values and clause.observed.isdigit():
        changes.append(change(clause, places=(*clause.places, data.draw(st.sampled_from(CELLS)))))
        changes.append(change(clause, places=clause.places[:-1]))
    if clause.values and clause.ok:
        (name, _), *rest = clause.values
        changes.append(change(clause, values=((name, other), *rest)))
    if clause.fits is not None:
        changes.append(change(clause, fits=other))
    return changes


def test_a_pairing_that_tells_what_is_seen_first_is_read_too():
    rule = Rule(id="R1", text="icon fits liquid: cherry for red, orange for orange")
    for said in ("icon orange, liquid red", "liquid red fits cherry, icon orange"):
        told = f"product: juice bottle of juice bottle ok; R1 {said}: orange of cherry bad"
        assert rationale.check_evidence(told, True, "juice_bottle", [rule])[0] == "consistent"
    wrong = told.replace("fits cherry", "fits orange")
    assert rationale.check_evidence(wrong, True, "juice_bottle", [rule])[0] == "contradicted"


@given(inspections(), st.data())
def test_every_rule_needs_its_clause(inspection, data):
    product, rules, facts = inspection
    clauses = rationale.clauses(product, rules, facts)
    assume(len(clauses) > 2)
    at = data.draw(st.integers(1, len(clauses) - 1))
    short = clauses[:at] + clauses[at + 1 :]
    swapped = [*clauses[:at], *clauses[at + 1 :], clauses[at]]
    for wrong in (short, swapped, [*clauses, clauses[at]]):
        if [c.rule for c in wrong] != [c.rule for c in clauses]:
            anomalous = any(not c.ok for c in wrong)
            assert evidence(wrong, anomalous, product, rules) == "contradicted"


@given(st.text(max_size=80), st.booleans())
def test_other_words_are_unchecked_and_never_consistent(text, anomalous):
    rules = [Rule(id="R1", text="exactly 2 washers")]
    found, why = rationale.check_evidence(text, anomalous, "screw_bag", rules)
    assert found == "unchecked"
    assert why


RULES = [
    Rule(id="R1", text="exactly 2 washers"),
    Rule(id="R2", text="icon fits liquid: cherry for red, orange for orange"),
    Rule(id="R3", text="fill level is normal"),
    Rule(id="R4", text="right clamps equal left clamps"),
]
SEEN = "product: screw bag of screw bag ok"
GOOD = (
    f"{SEEN}; R1 washers at B2, D4: 2 of 2 ok; R2 icon cherry, liquid red: cherry of cherry ok; "
    "R3 fill level: normal of normal ok; R4 right clamps 3, left clamps 3: 3 of 3 ok"
)


def check(text: str, anomalous: bool) -> tuple[str, str | None]:
    return rationale.check_evidence(text, anomalous, "screw_bag", RULES)


def test_a_good_part():
    assert check(GOOD, False) == ("consistent", None)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("2 of 2 ok", "3 of 2 ok", "places"),
        ("2 of 2 ok", "2 of 3 ok", "wants"),
        ("2 of 2 ok", "2 of 2 bad", "called"),
        ("at B2, D4", "at B2", "places"),
        ("washers", "nuts", "about"),
        ("cherry of cherry", "orange of cherry", "named"),
        ("liquid red", "liquid orange", "wants"),
        ("icon cherry", "icon orange", "named"),
        ("normal of normal", "low of normal", "called"),
        ("normal of normal", "low of low", "wants"),
        ("left clamps 3", "left clamps 2", "wants"),
        ("3 of 3 ok", "2 of 3 ok", "named"),
        ("R2 icon", "R5 icon", "follow"),
        ("R3 fill level:", "R3 fill level at B2:", "about"),
        ("R1 washers at B2, D4:", "R1 washers 2, nuts 2 at B2, D4:", "about"),
        (f"{SEEN};", "product: screw bag of juice bottle bad;", "recipe"),
        (SEEN, "product: juice bottle of screw bag ok", "called"),
        (SEEN, "product: screw bag of screw bag bad", "called"),
    ],
)
def test_a_contradiction_is_named(old, new, word):
    assert old in GOOD
    for anomalous in (False, True):
        found, why = check(GOOD.replace(old, new, 1), anomalous)
        assert found == "contradicted"
        assert word in why or "bad clauses" in why


def test_a_verdict_against_its_own_rationale():
    assert check(GOOD, True)[0] == "contradicted"
    assert check(GOOD.replace("at B2, D4: 2 of 2 ok", "at B2: 1 of 2 bad"), False)[0] == (
        "contradicted"
    )


def test_another_product_is_bad_and_needs_no_more():
    text = "product: juice bottle of screw bag bad"
    assert check(text, True) == ("consistent", None)
    assert check(text, False)[0] == "contradicted"
    assert rationale.seen_product(text) == "juice_bottle"
    assert rationale.seen_product(GOOD) is None


def test_a_rule_in_other_words_is_unchecked_but_the_others_are_checked():
    rules = [*RULES[:1], Rule(id="R2", text="the label sits straight")]
    text = f"{SEEN}; R1 washers at B2, D4: 2 of 2 ok; R2 label: straight of straight ok"
    assert rationale.check_evidence(text, False, "screw_bag", rules)[0] == "unchecked"
    wrong = text.replace("B2, D4", "B2")
    assert rationale.check_evidence(wrong, False, "screw_bag", rules)[0] == "contradicted"


def test_the_first_fault_is_named_with_its_places():
    text = GOOD.replace("at B2, D4: 2 of 2 ok", "at B2, B2, C3: 3 of 2 bad").replace(
        "normal of normal ok", "low of normal bad"
    )
    assert rationale.named_fault(text) == ("R1", ("B2", "B2", "C3"))
    assert rationale.named_fault(GOOD) == (None, ())
    assert rationale.named_fault("the washers look fine") == (None, ())


@given(
    st.one_of(st.none(), st.sampled_from(["R1", "R12"])),
    st.one_of(st.none(), st.sampled_from(["missing nut", "bent, cracked", "too far at left"])),
    st.lists(st.sampled_from(CELLS), unique=True, max_size=4),
)
def test_what_a_label_says_names_rule_and_places(rule, cause, cells):
    text = rationale.write_label(rule, cause, cells)
    assert rationale.named_fault(text) == (rule, tuple(cells))
    known = rule in (None, *(one.id for one in RULES))
    told = "unchecked" if known else "contradicted"
    assert rationale.check_evidence(text, True, "screw_bag", RULES)[0] == told
    assert rationale.check_evidence(text, False, "screw_bag", RULES)[0] == "contradicted"
    assert rationale.named_fault(text + "; and more") == (None, ())


@pytest.mark.parametrize(("anomalous", "told"), [(False, "unchecked"), (True, "contradicted")])
def test_a_label_of_a_good_picture_is_held_against_the_verdict(anomalous, told):
    assert rationale.check_evidence(rationale.HOLDS, anomalous, "screw_bag", RULES)[0] == told


@pytest.mark.parametrize("cell", ["H1", "A8", "A0", "J10"])
def test_cells_beyond_the_grid_are_not_read(cell):
    assert rationale.read(f"R1 washers at {cell}: 1 of 2 bad") is None


@pytest.mark.parametrize("product", ["bag_of_nuts", "box_of_bits_of_wire", "Box1", "a_", "b--c"])
def test_product_names_of_any_kind(product):
    said = rationale.product_clause(product, product)
    assert rationale.read(rationale.write([said])) == [said]


@pytest.mark.parametrize(
    "text",
    ["the bag is closed tightly", "exactly two washers", "icon fits liquid", "", "exactly 2 Nüsse"],
)
def test_free_words_have_no_form(text):
    assert rationale.read_rule(text) is None


def test_a_rule_is_read_in_any_case_with_or_without_full_stop():
    assert rationale.read_rule("Exactly 2 Long Screws.") == Count("long screws", 2)
