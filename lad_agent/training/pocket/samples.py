"""What a model in training says about the same few pictures after each stage: `samples.jsonl`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from lad_agent.training import runs
from lad_agent.training.pocket.architecture import PATCHES_A_SIDE, TOKENS
from lad_agent.training.pocket.data import Pictures, Pixels
from lad_agent.training.pocket.sft import Draw, Features, Stage
from lad_agent.training.pocket.vision import patches
from lad_agent.training.sft import answer

SAMPLES = 4
"""Pictures that the model is asked about."""


def keep(out: Path, stage: str, ask: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
    """Write what is answered after a stage into the run folder, unless it is there."""
    path = out / "samples.jsonl"
    if all(entry["stage"] != stage for entry in runs.read_lines(path)):
        for entry in ask():
            runs.add_line(path, {"stage": stage, **entry})


def answers(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Any,
    pictures: Pictures,
    references: Mapping[str, Pixels],
    stage: Stage,
    draw: Draw,
) -> list[dict[str, Any]]:
    """What the model says of the first few pictures, beside what it should.

    `references` are normal pictures of each product, uint8 [n, 196, 196, 3]. `draw` makes the texts
    of a stage, always about a picture; pixels stand here where it is handed tokens in training.
    """
    rows = np.arange(min(SAMPLES, len(pictures)))
    queries = Features(torch.from_numpy(pictures.take(rows)), pictures.facts)
    normal = {product: torch.from_numpy(pixels) for product, pixels in references.items()}
    out = []
    model.eval()
    for row in rows.tolist():
        text = draw(np.random.default_rng([row, 3]), row, stage, queries, normal, processor)
        prompt = text.prompt.replace("<|image_pad|>", "<|image_pad|>" * TOKENS)
        ids = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        grid = torch.tensor([[1, PATCHES_A_SIDE, PATCHES_A_SIDE]]).repeat(len(text.images), 1)
        shown = patches(torch.stack(text.images).numpy())
        seen = {"pixel_values": shown, "image_grid_thw": grid}
        out.append(
            {
                "picture": row,
                "product": pictures.facts[row].product,
                "said": answer(model, processor, ids, seen),
                "wanted": text.completion,
            }
        )
    return out
