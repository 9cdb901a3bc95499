"""Generated token ids to `Drawn`, with any tokenizer."""

import re
from collections.abc import Mapping
from typing import Any

from lad_agent.reasoners.base import Drawn
from lad_agent.reasoners.decoding import Generated
from lad_agent.reasoners.reading import ends_of, read_drawn

_SPELLED = re.compile(r"[^a-z0-9]*(?:yes|no)\s*", re.IGNORECASE)


class AnswerReader:
    """Reads what a model generated with one tokenizer.

    `spelled` maps the ids of all tokens that may stand where an answer says yes or no to their
    texts; their log-probabilities must be watched during decoding, in this order.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}
        self.spelled = self._find_spelled()

    def read(self, answer: Generated) -> Drawn:
        """The answer's text, its weakest token before the verdict, and P(yes) at the verdict."""

        def alternatives(step: int) -> Mapping[str, float]:
            return dict(zip(self.spelled.values(), answer.watched(step), strict=True))

        text = self._text(answer.ids)
        pieces = [self._piece(token) for token in answer.ids]
        ends = ends_of(pieces, text, lambda n: len(self._text(answer.ids[:n])))
        return read_drawn(text, ends, answer.logprobs, alternatives, complete=answer.complete)

    def _find_spelled(self) -> dict[int, str]:
        vocabulary = self._tokenizer.get_vocab().items()
        likely = sorted(i for word, i in vocabulary if re.search("(?i)yes|no", word))
        texts = {i: self._text([i]) for i in likely}
        return {i: text for i, text in texts.items() if _SPELLED.fullmatch(text)}

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._text([token])
        return self._pieces[token]

    def _text(self, ids: list[int]) -> str:
        # Special tokens stay visible: they are never part of a well-formed answer's frame.
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text
