"""What a mistyped word may have meant."""

import difflib
from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """The end of an error's line: the known word that `word` resembles, else all that are known.

    >>> hint("pass_bellow", ["pass_below", "reject_above"])
    "did you mean 'pass_below'?"
    >>> hint("x", ["pass_below", "reject_above"]), hint("x", [])
    ('known: pass_below, reject_above', 'known: none')
    """
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(words) or 'none'}"
