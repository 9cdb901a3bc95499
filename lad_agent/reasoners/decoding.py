"""Greedy and sampled decoding of Qwen2.5-VL from one shared prefix.

`model.generate` would prefill system, references and rules anew for every picture, copy the whole
key-value cache at every token, carry finished rows to the end of the batch, and cannot draw again
from a prompt it has just read. All four are done here, in a loop over the model's own forward
pass. All prompts of a task differ in the query's pixels alone, so they are equally long and there
is nothing to pad.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

Uniform = Callable[[int], float]
"""A number in [0, 1) for each step of one draw; what makes the draw its own."""

_ROOM = 64
_CROWDED = 0.8
"""Finished rows are dropped when at most this share is still being answered."""


@dataclass(frozen=True)
class Prompt:
    """A task's prompt up to the query, read by the model, and what follows.

    `suffix` are the token ids from the query's first visual token to the end (`visual` marks the
    visual ones), `positions` theirs (3 x 1 x length), `next_position` that of the first answer
    token.
    """

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    suffix: Tensor
    visual: Tensor
    positions: Tensor
    next_position: int


@dataclass(frozen=True)
class Prefilled:
    """Prompts with their queries read: the cache of every layer, and the first logits."""

    layers: "tuple[_GrowingLayer, ...]"
    logits: Tensor
    next_position: int


@dataclass
class Generated:
    """One answer: ids without the end token, log-probabilities, and those of watched tokens.

    `complete` is False where the token limit was reached before an end token.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    complete: bool = False
    _watched: list[Tensor] = field(default_factory=list)

    def watched(self, step: int) -> list[float]:
        """Log-probabilities of the watched tokens at one step, in their order."""
        values: list[float] = self._watched[step].tolist()
        return values


@torch.inference_mode()
def read_prompt(model: Any, inputs: Any, query_at: int) -> Prompt:
    """Read the prompt of `inputs` (a processor's output of one row) up to token `query_at`.

    Its last image stands for any query of that size; the others are the references.
    """
    ids, grids = inputs["input_ids"], inputs["image_grid_thw"]
    positions, _ = model.model.get_rope_index(ids, inputs["mm_token_type_ids"], grids)
    references = inputs["pixel_values"][: int(grids[:-1].prod(-1).sum())]
    features = image_features(model, references, grids[:-1])
    visual = ids == model.config.image_token_id
    seen = torch.cat(features) if features else torch.empty(0, device=ids.device)
    embedded = _embed(model, ids[:, :query_at], visual[:, :query_at], seen)
    cache = Cache(layer_class_to_replicate=DynamicLayer)
    _forward(model, embedded, positions[:, :, :query_at], cache)
    return Prompt(
        keys_values=tuple((layer.keys, layer.values) for layer in cache.layers),
        suffix=ids[:, query_at:],
        visual=visual[:, query_at:],
        positions=positions[:, :, query_at:],
        next_position=int(positions.max()) + 1,
    )


@torch.inference_mode()
def image_features(model: Any, pixel_values: Tensor, grids: Tensor) -> tuple[Tensor, ...]:
    """The merged visual tokens of each image; none of none."""
    if not len(grids):
        return ()
    found = model.model.get_image_features(pixel_values, grids, return_dict=True)
    features: tuple[Tensor, ...] = found.pooler_output
    return features


@torch.inference_mode()
def prefill(model: Any, prompt: Prompt, features: Sequence[Tensor]) -> Prefilled:
    """Read one query for each of `features` after the shared prompt."""
    rows = len(features)
    cache = Cache(layers=[_GrowingLayer.holding(k, v, rows) for k, v in prompt.keys_values])
    suffix, visual = prompt.suffix.expand(rows, -1), prompt.visual.expand(rows, -1)
    embedded = _embed(model, suffix, visual, torch.cat(tuple(features)))
    hidden = _forward(model, embedded, prompt.positions.expand(-1, rows, -1), cache)
    return Prefilled(
        layers=tuple(cache.layers),
        logits=model.lm_head(hidden).float(),
        next_position=prompt.next_position,
    )


@torch.inference_mode()
def decode(
    model: Any,
    start: Prefilled,
    draws: Sequence[tuple[int, Uniform]] | None = None,
    *,
    stop: frozenset[int],
    limit: int,
    watch: Tensor,
) -> list[Generated]:
    """One greedy answer for each row of `start`, or one for each of `draws` (row, numbers).

    Greedy takes the most probable token; a draw the one at its random number in the cumulated
    probabilities, which depends on nothing but the row's own probabilities and that number.
    Decoding ends at a token of `stop` or after `limit` tokens; the log-probabilities of the
    token ids `watch` are kept at every step. `start` can be decoded from again, but not by two
    threads at once.
    """
    layers, logits = [layer.branch() for layer in start.layers], start.logits
    if draws is not None:
        rows = torch.tensor([row for row, _ in draws], device=logits.device)
        layers, logits = [layer.rows(rows) for layer in layers], logits[rows]
    cache = Cache(layers=layers)
    answers = [Generated() for _ in range(len(logits))]
    active = list(range(len(answers)))
    for step in range(limit):
        logprobs = logits - logits.logsumexp(-1, keepdim=True)
        numbers = None if draws is None else [draws[i][1](step) for i in active]
        tokens = _pick(logprobs, numbers)
        _record([answers[i] for i in active], tokens, logprobs, watch, stop)
        keep = [n for n, i in enumerate(active) if not answers[i].complete]
        if not keep or step == limit - 1:
            break
        if len(keep) <= _CROWDED * len(active):
            kept = torch.tensor(keep, device=tokens.device)
            cache = Cache(layers=[layer.rows(kept) for layer in cache.layers])
            tokens, active = tokens[kept], [active[n] for n in keep]
        position = torch.full((3, len(active), 1), start.next_position + step, device=tokens.device)
        embedded = model.model.language_model.embed_tokens(tokens[:, None])
        logits = model.lm_head(_forward(model, embedded, position, cache)).float()
    return answers


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room ahead: a new token is written in place, not joined by a copy."""

    def __init__(self, key_room: Tensor, value_room: Tensor, length: int) -> None:
        super().__init__()
        self.dtype, self.device = key_room.dtype, key_room.device
        self.is_initialized = True
        self._key_room, self._value_room = key_room, value_room
        self._show(length)

    @classmethod
    def holding(cls, keys: Tensor, values: Tensor, rows: int) -> "_GrowingLayer":
        """A layer of `rows` rows that holds a copy of `keys` and `values` in each."""
        length = keys.shape[2]
        return cls(_with_room(keys, rows), _with_room(values, rows), length)

    def branch(self) -> "_GrowingLayer":
        """A layer that goes on from here in the same room, leaving this one's view as it is."""
        return _GrowingLayer(self._key_room, self._value_room, self.keys.shape[2])

    def rows(self, indices: Tensor) -> "_GrowingLayer":
        """A layer of its own with copies of the rows at `indices`."""
        return self.holding(self.keys[indices], self.values[indices], len(indices))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start, end = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if end > self._key_room.shape[2]:
            self._key_room = _with_room(self.keys, len(self.keys), key_states.shape[2])
            self._value_room = _with_room(self.values, len(self.values), key_states.shape[2])
        self._key_room[:, :, start:end] = key_states
        self._value_room[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def _show(self, length: int) -> None:
        self.keys = self._key_room[:, :, :length]
        self.values = self._value_room[:, :, :length]


def _with_room(states: Tensor, rows: int, more: int = 0) -> Tensor:
    _, heads, length, size = states.shape
    room = states.new_empty(rows, heads, length + more + _ROOM, size)
    room[:, :, :length] = states
    return room


def _embed(model: Any, ids: Tensor, visual: Tensor, features: Tensor) -> Tensor:
    embedded: Tensor = model.model.language_model.embed_tokens(ids)
    return embedded.masked_scatter(visual[..., None], features.to(embedded.dtype))


def _forward(model: Any, embedded: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """Hidden state of the last token of each row."""
    out = model.model.language_model(
        inputs_embeds=embedded, position_ids=positions, past_key_values=cache, use_cache=True
    )
    hidden: Tensor = out.last_hidden_state[:, -1]
    return hidden


def _pick(logprobs: Tensor, numbers: Sequence[float] | None) -> Tensor:
    if numbers is None:
        return logprobs.argmax(-1)
    cumulated = logprobs.double().exp().cumsum(-1)
    at = torch.tensor(numbers, dtype=torch.float64, device=logprobs.device) * cumulated[:, -1]
    drawn = torch.searchsorted(cumulated, at[:, None], right=True)[:, 0]
    return drawn.clamp(max=logprobs.shape[-1] - 1)


def _record(
    answers: Sequence[Generated],
    tokens: Tensor,
    logprobs: Tensor,
    watch: Tensor,
    stop: frozenset[int],
) -> None:
    chosen = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
    watched = logprobs[:, watch]
    for row, (answer, token) in enumerate(zip(answers, tokens.tolist(), strict=True)):
        if answer.complete:
            continue
        if token in stop:
            answer.complete = True
            continue
        answer.ids.append(token)
        answer.logprobs.append(chosen[row])
        answer._watched.append(watched[row])
