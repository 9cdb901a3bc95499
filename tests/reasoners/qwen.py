"""Qwen2.5's own tokenizer without a download: its ranks come with the package dashscope."""

import base64
import importlib.util
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.reasoners.toy import SPECIAL

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ORDER = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""The special tokens, whose ids follow those of the ranks."""
_LETTERS = bytes_to_unicode()


def tokenizer() -> PreTrainedTokenizerFast:
    """151,643 byte-level tokens with Qwen's ids, and the special ones behind them."""
    ranks = _ranks()
    merges = (_last_merge(token, ranks) for token in ranks if len(token) > 1)
    bpe = Tokenizer(models.BPE({_word(token): rank for token, rank in ranks.items()}, list(merges)))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, special=True) for token in ORDER])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[SPECIAL[1], *SPECIAL[3:]],
    )


def _ranks() -> dict[bytes, int]:
    found = importlib.util.find_spec("dashscope")
    assert found is not None
    (folder,) = found.submodule_search_locations or ()
    lines = (Path(folder) / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[str, str]:
    """The two tokens that a token is merged from, in the order of the ranks."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [parts[n] + parts[n + 1] for n in range(len(parts) - 1)]
        best = min(range(len(joined)), key=lambda n: ranks.get(joined[n], len(ranks)))
        parts[best : best + 2] = [joined[best]]
    return _word(parts[0]), _word(parts[1])


def _word(token: bytes) -> str:
    return "".join(_LETTERS[byte] for byte in token)
