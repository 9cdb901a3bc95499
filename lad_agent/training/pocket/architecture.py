"""The pocket model: Qwen2.5-VL's architecture at a few million parameters, and its tokenizer.

196 x 196 px, patch 14, merge 2: 7 x 7 visual tokens of 28 px, the cells of `lad_agent.cells`.
Every vision block attends fully: windows pay off at thousands of patches, not at 196.
"""

import itertools
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from lad_agent import protocol
from lad_agent.cells import CELLS
from lad_agent.reasoners.processing import new_processor
from lad_agent.recipe import Rule
from lad_agent.training.pocket import vocabulary

IMAGE_SIZE = 196
PATCH = 14
MERGE = 2
PATCHES_A_SIDE = IMAGE_SIZE // PATCH
TOKENS = (PATCHES_A_SIDE // MERGE) ** 2
LONGEST_ANSWER = 192
"""Tokens; a full screw bag of 24 parts takes 130."""

_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
"""Qwen2.5-VL's own layout, without tools and videos."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges make every word of protocol and rationale one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r" ?[A-Za-z]+[0-9]*| ?[0-9]+| ?[^\sA-Za-z0-9]|\s+"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        _corpus(),
        trainers.BpeTrainer(
            vocab_size=1200,
            min_frequency=2,
            special_tokens=list(_SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[_SPECIAL[1], *_SPECIAL[3:]],
        padding_side="left",
        model_max_length=4096,
    )
    fast.add_tokens(list(_TAGS))
    return fast


def processor() -> Any:
    """Image processor for the fixed size, with the tokenizer and the chat template."""
    return new_processor(tokenizer(), CHAT_TEMPLATE, IMAGE_SIZE)


def config(tokens: PreTrainedTokenizerFast, *, width: int, layers: int) -> Qwen2_5_VLConfig:
    """Configuration for a language model of `width` x `layers` behind a 128-wide tower."""
    ids = tokens.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "hidden_size": width,
            "intermediate_size": width * 3,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "num_key_value_heads": width // 32,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "out_hidden_size": width,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": IMAGE_SIZE,
            "fullatt_block_indexes": [0, 1, 2, 3],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def model(
    tokens: PreTrainedTokenizerFast, *, seed: int, width: int = 192, layers: int = 4
) -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised pocket model in float32."""
    torch.manual_seed(seed)
    net = Qwen2_5_VLForConditionalGeneration(config(tokens, width=width, layers=layers))
    net.generation_config.eos_token_id = tokens.convert_tokens_to_ids("<|im_end|>")
    net.generation_config.pad_token_id = tokens.convert_tokens_to_ids("<|endoftext|>")
    net.generation_config.max_new_tokens = LONGEST_ANSWER
    return net.to(torch.float32)


def _corpus() -> list[str]:
    """Texts in which every word stands often enough to be merged into one token."""
    words = sorted(
        set(
            itertools.chain.from_iterable(
                text.replace(":", " ").replace(",", " ").split() for text in vocabulary.TEXTS
            )
        )
    )
    numbers = [str(n) for n in range(31)]
    rules = [f"R{n}" for n in range(1, 13)]
    spaced = " ".join([*words, *numbers, *CELLS, *rules])
    prompt = protocol.messages("screw_bag", [Rule(id="R1", text="exactly 2 washers")])
    texts = [part["text"] for m in prompt for part in m["content"] if part["type"] == "text"]
    lines = ["\n".join(rules), "system\nuser\nassistant\n", " ".join(["yes", "no"]), "yes", "no"]
    return [f" {spaced}", spaced, *vocabulary.TEXTS, *texts, *lines, *words, *rules] * 8
