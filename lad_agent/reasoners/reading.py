"""From generated tokens to `Drawn`: where the verdict stands, and how sure each step was.

Positions are found in the decoded text, by the characters each token covers. Token ids would not
do: the same text splits differently with every tokenizer, and after every neighbour.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from lad_agent import protocol
from lad_agent.reasoners.base import Drawn


def read_drawn(
    text: str,
    ends: Sequence[int],
    logprobs: Sequence[float],
    alternatives: Callable[[int], Mapping[str, float]],
    *,
    complete: bool,
) -> Drawn:
    """Read one answer.

    `ends[i]` counts the characters of `text` up to and with token i, `logprobs[i]` is its
    log-probability, `alternatives(i)` gives decoded tokens with log-probabilities at its position:
    those that may spell yes or no at least. `complete` is False for an answer cut off at the
    token limit, which is never read: what would have followed is unknown. Nor is one of which a
    token up to the verdict has a log-probability that is no number.
    """
    span = protocol.verdict_span(text) if complete else None
    at = _token_at(span[0], ends) if span else None
    if span is None or not at or not all(map(math.isfinite, logprobs[:at])):
        return Drawn(text, None, None, None, None, len(logprobs))
    lead = text[ends[at - 1] : span[0]]
    # Rounding can leave a token that is certain a hair above 0.
    total = min(0.0, math.fsum(logprobs[:at]))
    return Drawn(
        text=text,
        weakest_token=min(1.0, math.exp(min(logprobs[:at]))),
        mean_logprob=total / at,
        sum_logprob=total,
        p_yes=protocol.anomaly_score(_after(lead, alternatives(at))),
        tokens=len(logprobs),
    )


def ends_of(pieces: Sequence[str], text: str, prefix_length: Callable[[int], int]) -> list[int]:
    """Characters of `text` up to and with each token.

    `pieces` are the tokens decoded one by one. Where a character is spread over several tokens
    they do not add up to the text; then `prefix_length(n)` must give the length of the first n
    tokens decoded together, which is slower.
    """
    if "".join(pieces) == text:
        ends, total = [], 0
        for piece in pieces:
            total += len(piece)
            ends.append(total)
        return ends
    return [min(len(text), prefix_length(n)) for n in range(1, len(pieces) + 1)]


def _token_at(character: int, ends: Sequence[int]) -> int | None:
    return next((i for i, end in enumerate(ends) if end > character), None)


def _after(lead: str, tokens: Mapping[str, float]) -> dict[str, float]:
    """The tokens without what the generated one has before the verdict (`>` in `>No`).

    Empty where such tokens exist for one side only (Qwen's vocabulary has `>No`, but no `>yes`):
    the other side would have come by another way, and its probability is unknown.
    """
    if not lead.strip():
        return dict(tokens)
    after = {token[len(lead) :]: p for token, p in tokens.items() if token.startswith(lead)}
    return after if {True, False} <= {protocol.spells(token) for token in after} else {}
