"""Equal pictures are read once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from lad_agent import protocol
from lad_agent.reasoners.checkpoint import load_checkpoint
from lad_agent.recipe import Rule
from lad_agent.training.tower import read_once
from tests.reasoners import toy


@pytest.fixture
def batch(small: Path) -> Any:
    """Two prompts twice each, under one reference."""
    processor = load_checkpoint(small, device="cpu").processor
    messages = protocol.messages("lamp", [Rule(id="R1", text="exactly 1 lamp")], 1)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    green, bright, dark = (toy.picture(c) for c in (toy.GREEN, toy.BRIGHT, toy.DARK))
    shown = [[green, bright], [green, bright], [green, dark], [green, dark]]
    return processor(
        text=[text] * 4, images=[one for row in shown for one in row], return_tensors="pt"
    )


def test_equal_pictures_are_read_once_and_tell_the_same(small: Path, batch: Any) -> None:
    plain, sparing = (Qwen2_5_VLForConditionalGeneration.from_pretrained(small) for _ in range(2))
    read_once(sparing)
    seen: list[int] = []
    sparing.model.visual.register_forward_pre_hook(
        lambda module, given, named: seen.append(len(named["grid_thw"])), with_kwargs=True
    )
    weights = torch.randn_like(plain(**batch).logits, generator=torch.Generator().manual_seed(0))
    for model in (plain, sparing):
        (model(**batch).logits * weights).sum().backward()
    assert seen == [3]
    assert len(batch["image_grid_thw"]) == 8
    assert torch.allclose(plain(**batch).logits, sparing(**batch).logits, atol=1e-5)
    for (name, one), two in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-4), name


def test_pictures_of_other_sizes_are_told_apart(small: Path) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(small)
    read_once(model)
    side = 2 * model.config.vision_config.spatial_merge_size
    grids = torch.tensor([[1, side, side // 2], [1, side // 2, side], [1, side, side // 2]])
    width = model.model.visual.patch_embed.proj.weight[0].numel()
    patches = torch.randn(side * side // 2, width).repeat(3, 1)
    one, two, three = model.model.get_image_features(patches, grids, return_dict=True).pooler_output
    assert torch.equal(one, three)
    assert one.shape == two.shape
    assert not torch.equal(one, two)
