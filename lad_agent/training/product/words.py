"""Words that a tokenizer does not know, each made one token of it."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lad_agent.reasoners.processing import load_processor


def widened(folder: Path, texts: Iterable[str]) -> Any:
    """The processor in `folder`, whose tokenizer makes every word of `texts` one token.

    Its own tokens keep their ids, new ones follow. A word is told apart from the same word after a
    space: give texts as they stand in prompts.
    """
    known = load_processor(folder)
    described = json.loads(known.tokenizer.backend_tokenizer.to_str())
    # Marks such as <think> lie outside the vocabulary proper; new ids must not meet theirs.
    described["model"]["vocab"] |= {t["content"]: t["id"] for t in described["added_tokens"]}
    for text in texts:
        with_words(described, text)
    with tempfile.TemporaryDirectory() as copy:
        known.save_pretrained(copy)
        (Path(copy) / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
        return load_processor(Path(copy))


def with_words(described: dict[str, Any], text: str) -> None:
    """Add to a tokenizer's description merges for the words of `text`, after all others.

    Merges of a lower rank come first, so that every word known before is still one token.
    """
    vocabulary, merges = described["model"]["vocab"], described["model"]["merges"]
    pieces = Tokenizer.from_str(json.dumps(described)).pre_tokenizer.pre_tokenize_str(text)
    for piece, _ in pieces:
        if piece in vocabulary:
            continue
        now = Tokenizer.from_str(json.dumps(described))
        left, *rest = [token.value for token in now.model.tokenize(piece)]
        for right in rest:
            merges.append([left, right])
            left += right
            vocabulary.setdefault(left, max(vocabulary.values()) + 1)
