"""The image-only processor: saved and loaded, and the pixels it makes."""

import json

import numpy as np
import pytest
import torch

from lad_agent.errors import ModelError
from lad_agent.reasoners.processing import load_processor, new_processor, pixels, usable_size
from tests.reasoners import toy


@pytest.fixture(scope="module")
def processor():
    return new_processor(toy.tokenizer(), toy.CHAT_TEMPLATE, toy.SIZE)


def test_saves_and_loads_under_the_stock_name(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == "Qwen2_5_VLProcessor"
    assert "video_processor" not in saved
    loaded = load_processor(tmp_path)
    assert loaded.chat_template == toy.CHAT_TEMPLATE
    assert loaded.tokenizer.padding_side == "left"
    shown = {"text": ["<|image_pad|> a"], "images": [[toy.picture(toy.RED)]]}
    before, after = (p(**shown, return_tensors="pt") for p in (processor, loaded))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_visual_tokens_match_the_picture(processor):
    out = processor(text=["<|image_pad|>"], images=[[toy.picture(toy.RED)]], return_tensors="pt")
    visual = (out["input_ids"] == processor.image_token_id).sum()
    assert visual == out["image_grid_thw"].prod() // 4 == 4
    assert out["mm_token_type_ids"].sum() == 4


@pytest.mark.parametrize(
    ("size", "usable"), [(56, 56), (60, 56), (196, 196), (200, 196), (1, 28), (70, 56), (71, 84)]
)
def test_sizes_are_whole_visual_tokens(processor, size, usable):
    assert usable_size(size, processor) == usable


def test_pixels_of_any_picture_are_a_square_of_the_size_asked(processor):
    shapes = [toy.picture(toy.RED, n).resize((30 + 50 * n, 80)) for n in range(3)]
    out = pixels(processor, shapes, 84)
    assert out["image_grid_thw"].tolist() == [[1, 6, 6]] * 3
    assert out["pixel_values"].shape == (3 * 36, 3 * 2 * 14 * 14)


def test_pixels_are_normalised_as_clip_wants(processor):
    picture = toy.picture(toy.RED)
    values = pixels(processor, [picture], toy.SIZE)["pixel_values"].numpy()
    rgb = np.asarray(picture, np.float64)[:14, :14, 0] / 255
    first = values[0].reshape(3, 2, 14, 14)
    assert np.allclose(first[0, 0], (rgb - 0.48145466) / 0.26862954, atol=1e-5)
    assert np.array_equal(first[:, 0], first[:, 1])


def test_another_familys_tokenizer_is_refused(tmp_path):
    processor = new_processor(toy.tokenizer(), toy.CHAT_TEMPLATE, toy.SIZE)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<|image_pad|>", "<|picture|>"))
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<|image_pad|>", "<|picture|>"))
    with pytest.raises(ModelError, match="not a Qwen2"):
        load_processor(tmp_path)
