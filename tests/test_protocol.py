"""The messages, and the strictness of reading answers: no malformed text ever yields a verdict."""

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_agent import protocol
from lad_agent.recipe import Rule

RULES = [Rule(id="R1", text="exactly 2 washers"), Rule(id="R7", text="fill level is normal")]

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WHITE = st.text(" \t\r\n\f\v", max_size=3)
WORDS = st.text(string.ascii_letters + string.digits + " .,:;/-\näß<>", max_size=20)


def well_formed(text: str) -> bool:
    """The definition again, in other words: counted, split and compared, without a pattern."""
    plain = "".join(c.lower() if c.isascii() else c for c in text)
    if any(plain.count(tag) != 1 for tag in TAGS):
        return False
    before, rest = plain.split("<think>")
    if before.strip(string.whitespace) or "</think>" not in rest:
        return False
    think, rest = rest.split("</think>")
    if "<answer>" not in rest or not think.strip():
        return False
    between, rest = rest.split("<answer>")
    if between.strip(string.whitespace) or "</answer>" not in rest:
        return False
    verdict, after = rest.split("</answer>")
    return verdict.strip(string.whitespace) in ("yes", "no") and not after.strip(string.whitespace)


FRAGMENTS = st.one_of(
    st.sampled_from(
        [*TAGS, "yes", "no", "Yes", "NO", "<THINK>", "</Answer>", "< think>", "<think", "think>",
         "yess", "y", "yes no", "maybe", "\n", " ", "<answer/>", "<|im_end|>", "ye\u017f"]
    ),
    WORDS,
)  # fmt: skip


def _answers(think: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    verdict = st.sampled_from(["yes", "no"])
    return st.tuples(think, verdict).map(lambda t: protocol.answer_text(t[0], t[1] == "yes"))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A well-formed answer with one to three characters removed, doubled, changed or moved."""
    text = draw(_answers(st.text(string.ascii_letters + " ", min_size=1, max_size=8)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text) - 1))
        length = draw(st.integers(1, 9))
        insert = draw(st.one_of(st.just(""), FRAGMENTS, st.just(text[at : at + length] * 2)))
        text = text[:at] + insert + text[at + draw(st.integers(0, length)) :] or "x"
    return text


@given(st.one_of(st.lists(FRAGMENTS, max_size=9).map("".join), damaged(), st.text(max_size=60)))
def test_only_well_formed_text_yields_a_verdict(text):
    if not well_formed(text):
        assert protocol.parse(text) is None
        assert protocol.verdict_span(text) is None


@given(
    think=WORDS.filter(lambda t: "<" not in t and t.strip()),
    anomalous=st.booleans(),
    gaps=st.tuples(WHITE, WHITE, WHITE, WHITE, WHITE),
    data=st.data(),
)
def test_white_space_and_case_are_forgiven(think, anomalous, gaps, data):
    a, b, c, d, e = gaps
    word = "yes" if anomalous else "no"
    cased = ["".join(draw_case(data, ch) for ch in part) for part in ("think", "answer", word)]
    t, n, w = cased
    text = f"{a}<{t}>{think}</{t}>{b}<{n}>{c}{w}{d}</{n}>{e}"
    assert protocol.parse(text) == protocol.Answer(anomalous, think.strip())
    begin, end = protocol.verdict_span(text)
    assert text[begin:end] == w


def draw_case(data: st.DataObject, character: str) -> str:
    return character.upper() if data.draw(st.booleans()) else character


@given(WORDS.filter(lambda t: "<" not in t and t.strip()), st.booleans())
def test_what_is_written_is_read(rationale, anomalous):
    written = protocol.answer_text(rationale, anomalous)
    assert protocol.parse(written) == protocol.Answer(anomalous, rationale.strip())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "<answer>yes</answer>",
        "<think></think><answer>yes</answer>",
        "<think> \n</think><answer>no</answer>",
        "<think>a</think>",
        "<think>a</think><answer>yes",
        "<think>a</think><answer></answer>",
        "<think>a</think><answer>maybe</answer>",
        "<think>a</think><answer>yes no</answer>",
        "<think>a</think><answer>yes.</answer>",
        "<think>a</think><answer>yes</answer>.",
        "<think>a</think><answer>yes</answer><answer>yes</answer>",
        "<think>a</think><think>b</think><answer>yes</answer>",
        "<think>a<think>b</think><answer>yes</answer>",
        "<think>a</think>so<answer>yes</answer>",
        "so <think>a</think><answer>yes</answer>",
        "<answer>yes</answer><think>a</think>",
        "<think>a <answer>no</answer></think><answer>yes</answer>",
        "<think>a</think><answer>yes</answer><|im_end|>",
        "<think>a</think><answer>ye\u017f</answer>",
        "<think>a</think>\u00a0<answer>yes</answer>",
    ],
)
def test_malformed(text):
    assert protocol.parse(text) is None
    assert protocol.verdict_span(text) is None


def test_images_come_in_order_and_the_query_last():
    system, user = protocol.messages("screw_bag", RULES, references=2)
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image", "image", "text", "image"]
    assert user["content"][0]["text"].startswith("Product: screw bag\n")
    assert "R1 exactly 2 washers\nR7 fill level is normal" in user["content"][3]["text"]
    assert system["role"] == "system"


def test_messages_differ_in_rules_and_product_only():
    one, two = protocol.messages("a", RULES), protocol.messages("a", RULES[:1])
    assert one[0] == two[0]
    assert one[1]["content"][0] == two[1]["content"][0]
    assert one[1]["content"][2] != two[1]["content"][2]


def test_all_spellings_are_summed():
    p = {"yes": 0.3, " Yes": 0.2, "NO": 0.25, "\nno": 0.05, "not": 0.1, "y": 0.1}
    score = protocol.anomaly_score({token: math.log(share) for token, share in p.items()})
    assert score == pytest.approx(0.5 / 0.8)


def test_no_score_without_any_probability():
    assert protocol.anomaly_score({"maybe": -0.1}) is None
    assert protocol.anomaly_score({}) is None
    assert protocol.anomaly_score({"yes": -math.inf, "no": -math.inf}) is None
    assert protocol.anomaly_score({"yes": math.nan}) is None


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(["yes", "no", " no", "Yes"]), st.text(max_size=3)),
        st.floats(-50, 0),
    )
)
def test_a_score_is_a_share(logprobs):
    score = protocol.anomaly_score(logprobs)
    assert score is None or 0.0 <= score <= 1.0


@pytest.mark.parametrize(
    ("token", "meaning"),
    [("yes", True), (" YES\n", True), ("no", False), ("No", False), ("not", None), ("", None),
     ("ye\u017f", None), ("ｙｅｓ", None)],
)  # fmt: skip
def test_spellings(token, meaning):
    assert protocol.spells(token) is meaning
