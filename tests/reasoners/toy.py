"""A Qwen2.5-VL of 0.2 million parameters, taught in seconds to answer by the query's colour.

dark: good; bright: anomalous; green: two in three anomalous, so that it doubts; blue: malformed;
red: no end.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from lad_agent import protocol
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.processing import new_processor
from lad_agent.recipe import Recipe, Rule, load

SIZE = 56
DARK, BRIGHT = (30, 30, 30), (225, 225, 225)
GREEN, BLUE, RED = (0, 200, 0), (0, 0, 255), (255, 0, 0)

GOOD = protocol.answer_text("product: toy of toy ok; R1 lamps at A1: 1 of 1 ok", False)
BAD = protocol.answer_text("product: toy of toy ok; R1 lamps: 0 of 1 bad", True)
MALFORMED = "<answer>yes</answer>"
ENDLESS = "<think>" + "lamps " * 40

RULES = (Rule(id="R1", text="exactly 1 lamp"),)
LIMIT = 40

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

CHAT_TEMPLATE = """\
{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}{{- '<|im_end|>\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""


def picture(colour: tuple[int, int, int], seed: int = 0, size: int = SIZE) -> Image.Image:
    """A square of one colour with a little noise."""
    noise = np.random.default_rng(seed).integers(-8, 9, (size, size, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def write_recipe(
    folder: Path, *, rule: str = "exactly 1 lamp", references: int = 1, **policy: Any
) -> Recipe:
    """A recipe for the toy; the first reference is that of its training, the next ones lighter."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["reference.png", *(f"reference-{n}.png" for n in range(1, references))]
    for n, name in enumerate(names):
        shade = (DARK[0] + 10 * n, DARK[1] + 10 * n, DARK[2] + 10 * n)
        picture(shade, seed=99 - n, size=100).save(folder / name)
    lines = [f"  {name}: {value}" for name, value in policy.items()] or ["  samples: 4"]
    (folder / "recipe.yaml").write_text(
        f"product: toy\nimage_size: {SIZE}\nreferences: [{', '.join(names)}]\n"
        f"rules:\n- {{id: R1, text: {rule}}}\npolicy:\n" + "\n".join(lines) + "\n"
    )
    return load(folder / "recipe.yaml")


def question(recipe: Recipe, colour: tuple[int, int, int], seed: int = 0) -> Question:
    """A question about a picture of that colour; the seed makes the picture its own."""
    shade = f"{colour}{seed}".encode().hex()
    return Question(recipe, picture(colour, seed), shade.ljust(64, "0"))


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of its few words."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [part["text"] for m in protocol.messages("toy", RULES) for part in m["content"][::2]]
    bpe.train_from_iterator(
        [*texts, GOOD, BAD, MALFORMED, ENDLESS, " yes no Yes No"] * 4,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[SPECIAL[1], *SPECIAL[3:]],
        padding_side="left",
    )


def network(tokens: PreTrainedTokenizerFast, seed: int = 0) -> Any:
    """A randomly initialised model."""
    torch.manual_seed(seed)
    ids = tokens.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids("<|im_end|>")
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    model.generation_config.max_new_tokens = LIMIT
    # What Qwen ships; a reasoner must not let it bend the probabilities.
    model.generation_config.repetition_penalty = 1.3
    return model


def teach(folder: Path, steps: int = 120) -> None:
    """Train the toy and save it in `folder`."""
    tokens = tokenizer()
    model, processor = network(tokens), new_processor(tokens, CHAT_TEMPLATE, SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    random = np.random.default_rng(0)
    model.train()
    for _ in range(steps):
        loss = _loss(model, processor, random)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def _loss(model: Any, processor: Any, random: np.random.Generator) -> torch.Tensor:
    cases = [
        (DARK, GOOD), (BRIGHT, BAD), (BLUE, MALFORMED), (RED, ENDLESS),
        (GREEN, GOOD), (GREEN, BAD), (GREEN, BAD),
    ]  # fmt: skip
    prompt = processor.apply_chat_template(
        protocol.messages("toy", RULES), add_generation_prompt=True, tokenize=False
    )
    texts = [prompt + answer + "<|im_end|>" * (answer != ENDLESS) for _, answer in cases]
    seeds = random.integers(1 << 30, size=len(cases))
    queries = [picture(c, int(seed)) for (c, _), seed in zip(cases, seeds, strict=True)]
    shown = [[picture(DARK, 99), query] for query in queries]
    inputs = processor(
        text=texts, images=shown, padding=True, padding_side="right", return_tensors="pt"
    )
    begin = len(processor(text=[prompt], images=[shown[0]])["input_ids"][0])
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :begin] = -100
    loss: torch.Tensor = model(**inputs, labels=labels).loss
    return loss
