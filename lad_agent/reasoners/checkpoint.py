"""A model folder: checked, fingerprinted, loaded. Safetensors only; pickles are never opened."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lad_agent.errors import ModelError, PrerequisiteError
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.processing import load_processor

ARCHITECTURE = "qwen2_5_vl"

_BIG = 1_000_000_000


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. `products` are those its card names, None where it names none."""

    folder: Path
    model: Any
    processor: Any
    device: torch.device
    fingerprint: str
    products: frozenset[str] | None


def load_checkpoint(
    folder: Path, *, device: str = "auto", adapter: Path | None = None
) -> Checkpoint:
    """Load any Qwen2.5-VL folder, with a LoRA adapter merged in if one is given.

    float32 on a CPU and for small models; bfloat16 from a billion parameters on elsewhere.

    Raises:
        ModelError: files are missing or damaged, or the folder holds another architecture.
        PrerequisiteError: the device is not there.
    """
    _check(folder)
    if adapter is not None:
        _check_adapter(adapter)
    where = pick_device(device)
    processor = load_processor(folder)
    model = _load(folder, _dtype(folder, where))
    if adapter is not None:
        model = _merge(model, adapter)
    return Checkpoint(
        folder=folder,
        model=model.to(where).eval().requires_grad_(False),
        processor=processor,
        device=where,
        fingerprint=fingerprint(folder, adapter),
        products=_products(folder),
    )


def pick_device(name: str) -> torch.device:
    """The torch device of that name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        PrerequisiteError: no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise PrerequisiteError(f"no device {name!r} here; use --device auto or cpu") from error
    return device


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder")
    config = _json(folder / "config.json", folder)
    found = config.get("model_type")
    if found != ARCHITECTURE:
        raise ModelError(
            f"{folder}: holds a {found!r} model; a Qwen2.5-VL ({ARCHITECTURE}) is needed"
        )
    missing = _missing_weights(folder)
    names = {path.name for path in folder.iterdir()}
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        missing.append("tokenizer.json")
    if not names & {"processor_config.json", "preprocessor_config.json"}:
        missing.append("preprocessor_config.json")
    if missing:
        raise ModelError(f"{folder}: {', '.join(missing)} missing; copy the whole model folder")


def _missing_weights(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(_json(index, folder).get("weight_map", {}).values()))
        return [name for name in shards if not (folder / name).is_file()]
    return [] if (folder / "model.safetensors").is_file() else ["model.safetensors"]


def _check_adapter(adapter: Path) -> None:
    names = ("adapter_config.json", "adapter_model.safetensors")
    missing = [name for name in names if not (adapter / name).is_file()]
    if missing:
        raise ModelError(f"{adapter}: {', '.join(missing)} missing; not a LoRA adapter folder")


def _json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: {path.name} missing; copy the whole model folder") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def _dtype(folder: Path, device: torch.device) -> torch.dtype:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    small = weights < 2 * _BIG
    return torch.float32 if device.type == "cpu" or small else torch.bfloat16


def _load(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import Qwen2_5_VLForConditionalGeneration

    try:
        with _quiet():
            model, loading = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        # safetensors, json and torch each raise their own on damaged or unfitting files.
        raise ModelError(f"{folder}: cannot be loaded ({_first_line(error)})") from error
    lacking = sorted(loading["missing_keys"]) + sorted(map(str, loading["mismatched_keys"]))
    if lacking:
        raise ModelError(f"{folder}: {len(lacking)} weights are missing, the first is {lacking[0]}")
    return model


def _merge(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    try:
        with _quiet(), warnings.catch_warnings():
            # peft asks transformers for things under their old names.
            warnings.simplefilter("ignore", FutureWarning)
            return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except Exception as error:
        # As above; an adapter of another architecture fails in peft's own ways.
        raise ModelError(f"{adapter}: does not fit the model ({_first_line(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers; faults are checked for above."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _products(folder: Path) -> frozenset[str] | None:
    card = folder / "model_card.json"
    products = _json(card, folder).get("products") if card.is_file() else None
    return frozenset(map(str, products)) if isinstance(products, list) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
