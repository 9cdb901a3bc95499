"""A stand-in for the language model: known logits at each step."""

import torch


class Stand:
    """Its logits at step n are row n of a table."""

    def __init__(self, table):
        self.model = self
        self.language_model = self
        self._table = table

    def embed_tokens(self, ids):
        return torch.zeros(*ids.shape, 1)

    def __call__(self, *, inputs_embeds, position_ids, past_key_values, use_cache):
        rows = inputs_embeds.shape[0]
        step = position_ids[0, :, -1:, None].float()
        return type("Out", (), {"last_hidden_state": step.expand(rows, 1, 1)})

    def lm_head(self, hidden):
        return torch.stack([self._table[int(step)] for step in hidden[:, 0]])
