"""Rewards: what earns one, and what must not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_agent import protocol
from lad_agent.recipe import Rule
from lad_agent.training.rewards import REWARDS, Case, accuracy, cause, evidence, structure

RULES = (Rule(id="R1", text="exactly 2 nuts"), Rule(id="R2", text="exactly 1 washer"))
SEEN = "product: screw bag of screw bag ok; R1 nuts at B2: 1 of 2 bad; R2 washers at C3: 1 of 1 ok"


def case(anomalous: bool, rule: str | None = None) -> Case:
    return Case("screw_bag", RULES, anomalous, rule)


@pytest.mark.parametrize(
    "answer",
    ["", "not", "normal", "unknown", "nope", "yesterday", "yes no", "no.", "noyes", "none", "null"],
)
@pytest.mark.parametrize("anomalous", [True, False])
def test_words_that_contain_or_lack_a_verdict_earn_nothing(answer: str, anomalous: bool) -> None:
    text = f"<think>looks fine</think><answer>{answer}</answer>"
    assert accuracy(text, case(anomalous)) == 0.0
    assert structure(text, case(anomalous)) == 0.0


@pytest.mark.parametrize("text", ["", " ", "yes", "no", "<answer>no</answer>", "<think></think>"])
def test_empty_and_bare_answers_earn_nothing(text: str) -> None:
    for name, reward in REWARDS.items():
        assert reward(text, case(False)) == 0.0, name
        assert reward(text, case(True, "R1")) == 0.0, name


@given(st.text(st.characters(exclude_characters="<>"), min_size=1), st.booleans(), st.booleans())
def test_no_reward_looks_at_length_or_words(words: str, said: bool, truth: bool) -> None:
    """Accuracy and structure pay the same for any thought, however long."""
    text = protocol.answer_text("x" + words, said)
    assert accuracy(text, case(truth)) == float(said == truth)
    assert structure(text, case(truth)) == 1.0
    longer = protocol.answer_text("x" + words * 5, said)
    assert accuracy(longer, case(truth)) == accuracy(text, case(truth))


@given(st.text(), st.booleans(), st.booleans(), st.booleans())
def test_rewards_lie_between_nothing_and_one(
    text: str, formed: bool, said: bool, anomalous: bool
) -> None:
    answer = protocol.answer_text(text, said) if formed else text
    for reward in REWARDS.values():
        assert 0.0 <= reward(answer, case(anomalous, "R1")) <= 1.0


def test_the_form_alone_pays_less_than_the_verdict() -> None:
    """A well-formed guess is paid for its form whatever it says: the difference is the verdict."""
    right, wrong = protocol.answer_text("a", True), protocol.answer_text("a", False)
    assert structure(right, case(True)) == structure(wrong, case(True)) == 1.0
    assert accuracy(right, case(True)) - accuracy(wrong, case(True)) == 1.0


def test_the_cause_must_be_named() -> None:
    assert cause(protocol.answer_text(SEEN, True), case(True, "R1")) == 1.0
    assert cause(protocol.answer_text(SEEN, True), case(True, "R2")) == 0.0
    assert cause(protocol.answer_text("all fine", False), case(False)) == 1.0
    assert cause(protocol.answer_text(SEEN, True), case(False)) == 0.0


def test_evidence_contradicted_earns_nothing_and_unreadable_half() -> None:
    assert evidence(protocol.answer_text(SEEN, True), case(True)) == 1.0
    assert evidence(protocol.answer_text(SEEN, False), case(False)) == 0.0
    assert evidence(protocol.answer_text("a nut is missing", True), case(True)) == 0.5
