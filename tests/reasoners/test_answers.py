"""Score and weakest token, proven on Qwen's own vocabulary and on a small one.

A stand-in for the language model gives known probabilities at each step; all that follows is the
real thing.
"""

import math
import re
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent.reasoners.answers import AnswerReader
from lad_agent.reasoners.decoding import Generated, Prefilled, decode
from tests.reasoners import qwen, toy
from tests.reasoners.stand import Stand

TEXTS = (
    "<think>R1 washers at B2, D4: 2 of 2 ok</think><answer>{}</answer>",
    "<think>R1 washers at B2, D4: 2 of 2 ok</think>\n<answer>{}</answer>",
    "<think>\nthe bag holds one nut\n</think>\n\n<answer>\n{}\n</answer>\n",
    " <THINK>yes, no and yes</THINK> <Answer> {} </Answer>",
    "<think>Größe 3 µm, 螺丝 两个, naïve</think><answer>{}</answer>",
    "<think>🔩🔩 ok</think><answer> {}</answer>",
)
YES = 9693
WORDS = ("yes", "no", "Yes", "No", "YES", "NO")


def answer(reader, tokenizer, ids, table, limit=200):
    """Decode greedily with these logits, as the reasoner does."""
    start = Prefilled(layers=(), logits=table[:1], next_position=1)
    watch = torch.tensor(list(reader.spelled), dtype=torch.long)
    stop = frozenset([tokenizer.eos_token_id])
    [found] = decode(Stand(table), start, stop=stop, limit=limit, watch=watch)
    assert found.ids == list(ids)
    return reader.read(found)


def table_for(tokenizer, ids, probabilities):
    """Logits that give each token of `ids` its probability, the rest shared by all others."""
    size = len(tokenizer)
    table = torch.empty(len(ids) + 1, size)
    said = zip([*ids, tokenizer.eos_token_id], probabilities, strict=True)
    for step, (token, p) in enumerate(said):
        table[step] = math.log((1 - p) / (size - 1))
        table[step, token] = math.log(p)
    return table


@cache
def _qwen():
    tokenizer = qwen.tokenizer()
    return tokenizer, AnswerReader(tokenizer)


@cache
def _toy():
    tokenizer = toy.tokenizer()
    return tokenizer, AnswerReader(tokenizer)


@pytest.fixture(params=[_qwen, _toy], ids=["qwen", "toy"])
def both(request):
    return request.param()


@pytest.fixture
def tokenizer(both):
    return both[0]


@pytest.fixture
def reader(both):
    return both[1]


def test_qwen_tokenizer_is_the_real_one():
    tokenizer, _ = _qwen()

    def ids(text):
        return tokenizer(text)["input_ids"]

    assert ids("<answer>yes</answer>") == [27, 9217, 29, 9693, 522, 9217, 29]
    assert [ids(word) for word in ("no", " yes", " no", "Yes", "No")] == [
        [2152], [9834], [902], [9454], [2753]
    ]  # fmt: skip
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 151645
    assert len(ids("</think><answer>")) != len(ids("</think>")) + len(ids("<answer>"))


def test_all_of_qwens_spellings_are_watched():
    _, reader = _qwen()
    assert {YES, 2152, 9834, 902, 9454, 2753, 14004, 8996} <= set(reader.spelled)
    words = {re.sub(r"[\W_]", "", text).lower() for text in reader.spelled.values()}
    assert words == {"yes", "no"}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("word", WORDS)
def test_weakest_token_is_that_of_the_rationale(tokenizer, reader, text, word):
    whole = text.format(word)
    ids = tokenizer(whole)["input_ids"]
    verdict = _verdict_at(tokenizer, ids, word)
    probabilities = [0.99] * (len(ids) + 1)
    probabilities[verdict // 2] = 0.6
    probabilities[verdict] = 0.55  # the verdict's own and what follows do not count
    probabilities[verdict + 1 :] = [0.52] * (len(ids) - verdict)
    found = answer(reader, tokenizer, ids, table_for(tokenizer, ids, probabilities))
    assert found.text == whole
    assert found.weakest_token == pytest.approx(0.6, abs=1e-4)
    total = (verdict - 1) * math.log(0.99) + math.log(0.6)
    assert found.sum_logprob == pytest.approx(total, abs=1e-4)
    assert found.mean_logprob == pytest.approx(total / verdict, abs=1e-5)
    assert found.tokens == len(ids)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("word", ["yes", "no", "Yes"])
def test_score_sums_every_spelling_at_the_verdict(tokenizer, reader, text, word):
    ids = tokenizer(text.format(word))["input_ids"]
    at = _verdict_at(tokenizer, ids, word)
    masses = {"yes": 0.06, " yes": 0.05, "Yes": 0.04, "no": 0.03, " no": 0.02, "No": 0.01}
    masses[reader.spelled[ids[at]]] = 0.5
    table = table_for(tokenizer, ids, [0.9] * (len(ids) + 1))
    table[at] = -math.inf
    for piece, share in masses.items():
        token = _token(reader, piece)
        if token is not None:
            table[at, token] = math.log(share)
    rest = [i for i in range(len(tokenizer)) if i not in reader.spelled]
    table[at, rest[:100]] = math.log(0.001)
    known = {p: s for p, s in masses.items() if _token(reader, p) is not None}
    yes = sum(s for p, s in known.items() if p.strip().lower() == "yes")
    found = answer(reader, tokenizer, ids, table)
    assert found.p_yes == pytest.approx(yes / sum(known.values()), abs=1e-4)
    assert (found.p_yes > 0.5) == (word.lower() == "yes")


@pytest.mark.parametrize("text", TEXTS)
def test_an_answer_cut_off_is_never_read(tokenizer, reader, text):
    ids = tokenizer(text.format("no"))["input_ids"]
    table = table_for(tokenizer, ids, [0.9] * (len(ids) + 1))
    found = answer(reader, tokenizer, ids, table, limit=len(ids))
    assert found.text == text.format("no")
    assert (found.weakest_token, found.sum_logprob, found.p_yes) == (None, None, None)
    whole = answer(reader, tokenizer, ids, table, limit=len(ids) + 1)
    assert whole.weakest_token is not None


@pytest.mark.parametrize(
    "text", ["", "<answer>yes</answer>", "<think>a</think><answer>yes</answer><|im_start|>"]
)
def test_malformed_text_has_no_figures(tokenizer, reader, text):
    ids = tokenizer(text)["input_ids"]
    found = answer(reader, tokenizer, ids, table_for(tokenizer, ids, [0.9] * (len(ids) + 1)))
    assert (found.text, found.weakest_token, found.p_yes) == (text, None, None)


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=12),
    st.data(),
)
def test_weakest_token_whatever_the_characters(think, data):
    tokenizer, reader = _qwen()
    whole = f"<think>a{think}</think><answer>yes</answer>"
    ids = tokenizer(whole)["input_ids"]
    verdict = len(ids) - 1 - ids[::-1].index(YES)
    logprobs = [math.log(0.99)] * verdict + [math.log(0.5)] * (len(ids) - verdict)
    logprobs[data.draw(st.integers(0, verdict - 1))] = math.log(0.7)
    sure = torch.tensor([-0.1 if i == YES else -9.0 for i in reader.spelled])
    found = reader.read(Generated(ids, logprobs, True, [sure] * len(ids)))
    assert found.weakest_token == pytest.approx(0.7)
    assert found.p_yes > 0.99


def test_certain_tokens_add_up_to_no_more_than_certainty():
    """Rounding leaves log-probabilities a hair above 0."""
    tokenizer, reader = _qwen()
    ids = tokenizer("<think>a</think><answer>no</answer>")["input_ids"]
    sure = torch.full([len(reader.spelled)], -1.0)
    found = reader.read(Generated(ids, [3e-8] * len(ids), True, [sure] * len(ids)))
    assert (found.weakest_token, found.mean_logprob, found.sum_logprob) == (1.0, 0.0, 0.0)


def test_a_token_that_holds_the_bracket_too_gives_no_score():
    """Qwen has a token `>No`, but none `>yes`: what yes would have had is unknown."""
    tokenizer, reader = _qwen()
    ids = tokenizer("<think>a</think><answer>No</answer>")["input_ids"]
    assert tokenizer.decode([41157]) == ">No"
    assert 41157 in ids
    found = answer(reader, tokenizer, ids, table_for(tokenizer, ids, [0.9] * (len(ids) + 1)))
    assert found.p_yes is None
    assert found.weakest_token == pytest.approx(0.9, abs=1e-4)


def _token(reader, piece):
    return next((i for i, text in reader.spelled.items() if text == piece), None)


def _verdict_at(tokenizer, ids, word):
    """Found the slow way: the token that makes the text longer than what stands before the word."""
    text = tokenizer.decode(ids)
    begin = text.lower().rindex(word.lower(), 0, text.lower().rindex("</answer>"))
    return next(n for n in range(len(ids)) if len(tokenizer.decode(ids[: n + 1])) > begin)
