"""The model a run starts from: found, named with its licence, weighed, and opened for training."""

import json
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lad_agent.errors import ModelError, NotFound, PrerequisiteError, UsageError
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.checkpoint import ARCHITECTURE, load_checkpoint
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.processing import load_processor
from lad_agent.training import runs
from lad_agent.training.config import RunConfig, Stage, changed

LANGUAGE_LAYERS = (
    r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)
"""The linear layers that LoRA adapts: those of the language model, none of the tower."""

POCKET_LICENCE = "pocket: Apache-2.0"
_LICENCES = {
    2048: "Qwen2.5-VL-3B: Qwen Research License, for non-commercial use only",
    3584: "Qwen2.5-VL-7B: Apache-2.0",
    5120: "Qwen2.5-VL-32B: Apache-2.0",
    8192: "Qwen2.5-VL-72B: Qwen License, commercial use limited",
}
REACHED = 0.4
"""Share of a device's matrix speed that training reaches (PaLM reports 0.46)."""
_TEXT_TOKENS = 400
"""About what a long prompt and its answer take beside the pictures."""
PICTURES = 2
"""In a prompt, where nothing else is known: a reference and the query."""


@dataclass(frozen=True)
class Base:
    """A model folder, with the LoRA adapter of an earlier run that is gone on from."""

    folder: Path
    adapter: Path | None

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.folder, self.adapter)


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes on each device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimizer", "activations")
        told = ", ".join(f"{name} {_size(getattr(self, name))}" for name in parts)
        return f"{_size(self.total)} ({told})"


def find(name: str) -> Base:
    """The base that a configuration names: `pocket`, a model folder, or an earlier run's folder,
    one of `train pocket` or `train product` too.

    Raises:
        NotFound: there is no such folder.
        UsageError: the earlier run has not finished.
        ModelError: the folder holds a model of another family.
    """
    folder = EMBEDDED if name == "pocket" else Path(name)
    if not folder.is_dir():
        raise NotFound(
            f"no base {name!r}: give pocket, the folder of a Qwen2.5-VL, or that of a finished run "
            "(--base FOLDER)"
        )
    if (folder / "run.json").exists():
        return _of_run(folder)
    if (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    _refuse_other_family(folder)
    return Base(folder, None)


def find_pocket(name: str) -> Path:
    """The folder of the pocket model of that name, which `find` knows.

    Raises:
        ModelError: it is none: an adapter, or a model without an object head.
        As `find`.
    """
    base = find(name)
    if base.adapter is not None:
        raise ModelError(
            f"{name}: a LoRA adapter; give a pocket model, or go on from it by train sft"
        )
    for part in ("witness.json", "witness.safetensors"):
        if not (base.folder / part).is_file():
            raise ModelError(f"{base.folder}: no {part}; give a pocket model, which has one")
    return base.folder


def licence(base: Base) -> str:
    """Under which licence the base stands, as far as its shape or its card tells: to be shown
    before training.

    What is made from a base stands under its licence too.
    """
    if base.folder == EMBEDDED:
        return POCKET_LICENCE
    known = _LICENCES.get(_config(base).text_config.hidden_size) or card(base).get("licence")
    return str(known or f"{base.folder.name}: licence unknown; look into its folder")


def card(base: Base) -> dict[str, Any]:
    """What `model_card.json` says of the base; nothing where there is none.

    Raises:
        ModelError: it cannot be read.
    """
    return runs.card(base.folder)


def open_base(base: Base, config: RunConfig) -> tuple[Any, Any]:
    """Model and processor, ready for training: what is to learn requires gradients, all else not.

    Full training holds float32 weights, or updates of a millionth would be rounded away; under
    LoRA the base lies in `config.precision` and the adapter in float32.

    Raises:
        ModelError: the folder cannot be used, or the earlier adapter has another shape.
    """
    lora = config.adapter == "lora"
    merged = None if lora else base.adapter
    loaded = load_checkpoint(base.folder, device=_device(), adapter=merged)
    dtype = torch.bfloat16 if lora and config.precision == "bfloat16" else torch.float32
    model = loaded.model.to(dtype)
    return prepare(model, config, base.adapter if lora else None), loaded.processor


def shrunken(base: Base, config: RunConfig, folder: Path) -> Base:
    """Write into `folder` a random model of the base's class and configuration, of two narrow
    layers, with the base's own processor: no weights are read.

    Raises:
        ModelError: configuration, tokenizer or processor cannot be used.
    """
    processor = load_processor(base.folder)
    data = _config(base).to_dict()
    text, vision = data["text_config"], data["vision_config"]
    head = text["hidden_size"] // text["num_attention_heads"]
    text |= {
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "hidden_size": 2 * head, "intermediate_size": 4 * head,
    }  # fmt: skip
    text.pop("layer_types", None)
    head = vision["hidden_size"] // vision["num_heads"]
    vision |= {
        "depth": 2, "num_heads": 2, "hidden_size": 2 * head, "intermediate_size": 4 * head,
        "out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [1],
    }  # fmt: skip
    torch.manual_seed(config.seed)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**data))
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Base(folder, None)


def prepare(model: Any, config: RunConfig, adapter: Path | None) -> Any:
    """`model` with what `config` lets learn: LoRA (a new one, or that in `adapter`), or in full.

    Raises:
        ModelError: `adapter` has another rank than the configuration.
    """
    if config.adapter == "lora":
        return _with_lora(model.requires_grad_(False), config, adapter)
    model.requires_grad_(True)
    model.model.visual.requires_grad_(config.tower == "trained")
    return model


def estimate(base: Base, config: RunConfig, stage: Stage, pictures: int = PICTURES) -> Memory:
    """What training takes on each device, from the configuration and the `pictures` of a prompt.

    Weights, gradients and AdamW's two moments by counting parameters, with autocast's bfloat16
    copies of those that learn, and GRPO's second copy of a model that is trained in full (the
    reference that beta holds it to). Activations a layer and token after Korthikanti et al. 2022
    (arXiv 2205.05198, section 4.1) without the attention matrix, which sdpa never keeps, and with
    Qwen's gated MLP: 17 h + 8 i bytes at 2 bytes a value (h hidden, i intermediate size); with
    gradient checkpointing 2 h a layer, and one layer in full. The head's logits are computed in
    tiles and take next to nothing. Where GRPO's answers, which a process draws all at once, take
    more than that, it is what they take. Sharded (FSDP, DeepSpeed), all but the activations is
    shared.
    """
    shape = _config(base)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(shape)
    total, tower = map(_count, (model, model.model.visual))
    half = config.precision == "bfloat16"
    if config.adapter == "lora":
        learning = sum(
            config.lora.rank * (module.in_features + module.out_features)
            for name, module in model.named_modules()
            if re.fullmatch(LANGUAGE_LAYERS, name)
        )
        weights = (2 if half else 4) * total + 4 * learning
    else:
        learning = total if config.tower == "trained" else total - tower
        weights = 4 * total
        if stage == "grpo" and config.grpo.beta > 0:
            weights *= 2
    copies = 2 * learning if half else 0
    shards = runs.processes() if _sharded() else 1
    return Memory(
        weights=(weights + copies) // shards,
        gradients=4 * learning // shards,
        optimizer=8 * learning // shards,
        activations=max(
            _activations(shape, config, stage, pictures),
            _answering(shape, config, pictures) if stage == "grpo" else 0,
        ),
    )


def seconds_a_step(base: Base, config: RunConfig, stage: Stage, pictures: int = PICTURES) -> float:
    """About what a step of the real base takes on this device, from counted operations.

    Forward takes 2 operations a parameter and token, backward 4, or 2 where only LoRA learns;
    gradient checkpointing runs forward once more (Korthikanti et al. 2022, appendix A). They run
    at `REACHED` of the speed that a matrix product of the run's precision is measured at. Every
    token of GRPO's answers reads the language model's weights once, at the bandwidth measured.
    """
    shape, share = _config(base), runs.processes()
    language, tower = _parameters(shape)
    tokens, patches = _prompt(shape, config, pictures)
    learn = 2 + (2 if config.adapter == "lora" else 4) + 2 * config.gradient_checkpointing
    see = 6 if config.tower == "trained" else 2
    dtype = getattr(torch, config.precision)
    operations, bandwidth = _speed(dtype)
    if stage == "sft":
        work = config.sft.batch / share * (learn * language * tokens + see * tower * patches)
        return float(work / (REACHED * operations))
    section = config.grpo
    answers, long = section.prompts * section.num_generations / share, section.max_completion
    passes = learn + (2 if section.beta else 0)
    work = answers * (passes * language * (tokens + long) + see * tower * patches)
    work += answers * 2 * (language * (tokens + long) + tower * patches)
    read = long * language * dtype.itemsize
    return float(work / (REACHED * operations) + read / bandwidth)


def refuse_too_big(
    base: Base,
    config: RunConfig,
    stage: Stage,
    pictures: int = PICTURES,
    *,
    free: int | None = None,
) -> Memory:
    """The estimate, if it fits into `free` bytes (by default what is free on this device).

    Raises:
        PrerequisiteError: it does not; says what would.
    """
    needed = estimate(base, config, stage, pictures)
    free = free_memory() if free is None else free
    if needed.total <= free:
        return needed
    raise PrerequisiteError(
        f"{config.base} needs {needed}, {_size(free)} are free; "
        f"{_what_fits(base, config, stage, pictures, free)}"
    )


def free_memory() -> int:
    """Bytes free on the device that training would use."""
    device = torch.device(_device())
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def _of_run(folder: Path) -> Base:
    if (folder / "model").is_dir():
        return Base(folder / "model", None)
    if (folder / "adapter").is_dir():
        return Base(find(runs.find_run(folder).config.base).folder, folder / "adapter")
    raise UsageError(f"{folder}: this run has not finished; go on with it first")


def _refuse_other_family(folder: Path) -> None:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = content.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}: no readable config.json; give a model's folder") from error
    if found != ARCHITECTURE:
        raise ModelError(
            f"{folder}: holds a {found!r} model, but training knows Qwen2.5-VL ({ARCHITECTURE}) "
            "alone; another family would need its own processor, collation of pictures and LoRA "
            "layers"
        )


def _config(base: Base) -> Qwen2_5_VLConfig:
    try:
        return Qwen2_5_VLConfig.from_pretrained(base.folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{base.folder}: config.json cannot be used ({error})") from error


def _device() -> str:
    """This process's own; `LOCAL_RANK` is set by torchrun and accelerate."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu"


def _with_lora(model: Any, config: RunConfig, adapter: Path | None) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(config.seed)
    with warnings.catch_warnings():
        # peft asks transformers for things under their old names.
        warnings.simplefilter("ignore", FutureWarning)
        if adapter is None:
            lora = LoraConfig(
                r=config.lora.rank,
                lora_alpha=config.lora.alpha,
                lora_dropout=config.lora.dropout,
                target_modules=LANGUAGE_LAYERS,
                task_type="CAUSAL_LM",
            )
            return get_peft_model(model, lora)
        opened = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    rank = opened.peft_config["default"].r
    if rank != config.lora.rank:
        raise ModelError(f"{adapter}: of rank {rank}; set lora: {{rank: {rank}}} to go on with it")
    return opened


def _parameters(shape: Qwen2_5_VLConfig) -> tuple[int, int]:
    """Parameters that a token of text passes (the head's, and no table's), and those of a patch."""
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(shape)
    layers = sum(_count(layer) for layer in model.model.language_model.layers)
    return layers + model.lm_head.weight.numel(), _count(model.model.visual)


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _speed(dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second in a product of matrices, bytes a second in a copy, on this device."""
    device = torch.device(_device())
    side = 8192 if device.type == "cuda" else 1024
    square = torch.randn(side, side, device=device).to(dtype)
    wide = torch.empty(2**28 if device.type == "cuda" else 2**25, dtype=torch.uint8, device=device)
    product = min(_seconds(lambda: square @ square, device) for _ in range(4))
    copied = min(_seconds(lambda: wide.clone(), device) for _ in range(4))
    return 2 * side**3 / product, 2 * wide.numel() / copied


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _prompt(shape: Qwen2_5_VLConfig, config: RunConfig, pictures: int) -> tuple[int, int]:
    """Tokens of a prompt, and patches of its pictures."""
    vision = shape.vision_config
    side = config.image_size // vision.patch_size
    tokens = pictures * (side // vision.spatial_merge_size) ** 2 + _TEXT_TOKENS
    return tokens, pictures * side**2


def _activations(shape: Qwen2_5_VLConfig, config: RunConfig, stage: Stage, pictures: int) -> int:
    text, vision = shape.text_config, shape.vision_config
    prompt, patches = _prompt(shape, config, pictures)
    tokens = prompt + (config.grpo.max_completion if stage == "grpo" else 0)
    sequences = config.grpo.micro if stage == "grpo" else config.sft.micro
    layer = 17 * text.hidden_size + 8 * text.intermediate_size
    if config.gradient_checkpointing:
        kept = 2 * text.hidden_size * text.num_hidden_layers + layer
    else:
        kept = layer * text.num_hidden_layers
    one = 17 * vision.hidden_size + 8 * vision.intermediate_size
    seen = one * (vision.depth if config.tower == "trained" else 1)
    width = 1 if config.precision == "bfloat16" else 2
    return int(sequences * (tokens * kept + patches * seen) * width)


def _answering(shape: Qwen2_5_VLConfig, config: RunConfig, pictures: int) -> int:
    """Bytes while a process draws the answers of a step: keys and values of every layer and token,
    and of all prompts at once what one layer makes: 3 i + 2 h values a token, in gate, up and their
    product, or in the tower a patch."""
    text, vision, section = shape.text_config, shape.vision_config, config.grpo
    # A pool is chosen by every process for itself.
    sharing = 1 if section.pool else runs.processes()
    answers = section.prompts * section.num_generations // sharing
    prompt, patches = _prompt(shape, config, pictures)
    head = text.hidden_size // text.num_attention_heads
    kept = 2 * text.num_hidden_layers * text.num_key_value_heads * head
    made = prompt * (3 * text.intermediate_size + 2 * text.hidden_size)
    seen = patches * (3 * vision.intermediate_size + 2 * vision.hidden_size)
    width = 2 if config.precision == "bfloat16" else 4
    tokens = prompt + section.max_completion
    return int(answers * (tokens * kept + max(made, seen)) * width)


def _what_fits(base: Base, config: RunConfig, stage: Stage, pictures: int, free: int) -> str:
    few = {"micro": 1}
    if stage == "grpo":
        draws = min(4, config.grpo.num_generations)
        few = {"micro": 1, "prompts": runs.processes(), "num_generations": draws}
    fewer: dict[str, Any] = {stage: few}
    small = ", ".join(f"{name}: {number}" for name, number in few.items())
    tries = [
        (small, fewer),
        ("gradient_checkpointing: true", {"gradient_checkpointing": True}),
        (f"{small} with gradient_checkpointing", {**fewer, "gradient_checkpointing": True}),
        (
            f"adapter: lora in bfloat16, with {small} and gradient_checkpointing",
            {
                **fewer,
                "gradient_checkpointing": True,
                "adapter": "lora",
                "tower": "frozen",
                "precision": "bfloat16",
            },
        ),
    ]
    for words, flags in tries:
        needed = estimate(base, changed(config, **flags), stage, pictures)
        if needed.total <= free:
            return f"{words} would fit ({_size(needed.total)})"
    return "nothing would fit: take a smaller base or image_size, or share it (FSDP)"


def _sharded() -> bool:
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() in ("1", "true") for name in names)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
