"""New words become one token each, and nothing that was known changes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.processing import load_processor
from lad_agent.training.pocket import vocabulary
from lad_agent.training.product.words import widened, with_words

WORDS = st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def known() -> Any:
    return load_processor(EMBEDDED).tokenizer


def _ids(tokens: Any, text: str) -> list[int]:
    ids: list[int] = tokens(text, add_special_tokens=False)["input_ids"]
    return ids


@settings(deadline=None, max_examples=25)
@given(words=WORDS)
def test_every_word_is_one_token(known: Any, words: list[str]) -> None:
    # Words that begin alike are the hard case.
    words = [*words, *(f"{word}s" for word in words), words[0] * 2]
    described = json.loads(known.backend_tokenizer.to_str())
    for word in words:
        with_words(described, f" {word}")
    wide = Tokenizer.from_str(json.dumps(described))
    assert {word for word in words if len(wide.encode(f" {word}").ids) != 1} == set()
    text = f"R1 exactly 2 {' '.join(words)}"
    assert wide.decode(wide.encode(text).ids) == text


def test_what_was_known_keeps_its_ids(known: Any) -> None:
    wide = widened(EMBEDDED, [" spare kit", " rings", " ring", " washerette", "R44"]).tokenizer
    new = {token: number for token, number in wide.get_vocab().items() if number >= len(known)}
    assert sorted(new.values()) == list(range(len(known), len(wide)))
    assert {t: n for t, n in wide.get_vocab().items() if t not in new} == known.get_vocab()
    marks = "<|im_start|>user\nQuery:<|vision_start|><think>yes</think><answer>no<|im_end|>"
    for text in (*vocabulary.TEXTS, marks):
        assert _ids(wide, text) == _ids(known, text)
    assert wide.eos_token_id == known.eos_token_id
    assert wide.padding_side == known.padding_side == "left"


def test_known_words_need_no_new_tokens(known: Any) -> None:
    assert len(widened(EMBEDDED, [" exactly 2 washers", "R1"]).tokenizer) == len(known)
