"""`lad-agent train average`: one model out of several that went on from the same one.

Models that were trained on from one base with other pictures make different mistakes, and lie in
one valley of the loss: the mean of their weights is better than each, and costs nothing when it
judges (model soups, Wortsman et al. 2022, arXiv 2203.05482).
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lad_agent import atomic
from lad_agent.errors import UsageError
from lad_agent.training import bases, runs

WEIGHTS = ("model.safetensors", "witness.safetensors")
_CARD = "model_card.json"
_SHARED = (
    "name", "architecture", "parameters", "products", "image_size", "licence", "data",
    "configuration", "versions",
)  # fmt: skip
"""What a card tells of all that went on from one base; not whose run it was, nor what it read."""
_MEASURED = ("figures", "head_reads", "last_losses", "seconds", "notes")


def average(models: Sequence[str], out: Path) -> Path:
    """Write the mean of the weights of pocket models into the new folder `out`; returns it.

    `models` are pocket models, folders of models or of the runs that made them. Everything beside
    the weights is that of the last one, and must be the same in all.

    Raises:
        NotFound, UsageError: a model is not there, there is one alone, they are of different shape
            or vocabulary, or `out` is there already.
        ModelError: one is no pocket model, or cannot be read.
        PrerequisiteError: the disk is full.
    """
    folders = [bases.find_pocket(name) for name in models]
    if len(folders) < 2:
        raise UsageError("a mean takes two models or more; name another")
    if out.exists():
        raise UsageError(f"{out} is there already; name a new folder")
    for folder in folders:
        _refuse_other(folder, folders[-1])
    with runs.with_room(out), atomic.new_folder(out) as half:
        shutil.copytree(folders[-1], half, ignore=shutil.ignore_patterns(*WEIGHTS, _CARD))
        for name in WEIGHTS:
            with safe_open(folders[-1] / name, "pt") as last:
                metadata = last.metadata()
            save_file(_mean([folder / name for folder in folders]), half / name, metadata)
        (half / _CARD).write_text(json.dumps(_card(folders), indent=1) + "\n", encoding="utf-8")
    return out


def _refuse_other(folder: Path, last: Path) -> None:
    """Refuse a model that is not one with `last` but for its weights."""
    kept = {p.name for p in (*folder.iterdir(), *last.iterdir()) if p.suffix != ".safetensors"}
    for name in sorted(kept - {_CARD}):
        one, two = folder / name, last / name
        if not (one.is_file() and two.is_file()) or one.read_bytes() != two.read_bytes():
            raise UsageError(
                f"{folder} and {last} differ in {name}; average models that went on from one base"
            )


def _mean(files: Sequence[Path]) -> dict[str, Tensor]:
    tensors = [load_file(file) for file in files]
    shapes = [{name: value.shape for name, value in one.items()} for one in tensors]
    for file, found in zip(files, shapes, strict=True):
        if found != shapes[-1]:
            raise UsageError(f"{file} and {files[-1]} hold other tensors; are they of one size?")
    return {
        name: (sum(one[name] for one in tensors[1:]) + tensors[0][name]) / len(tensors)
        for name in tensors[-1]
    }


def _card(folders: Sequence[Path]) -> dict[str, Any]:
    cards = [runs.card(folder) for folder in folders]
    kept = {name: cards[-1][name] for name in _SHARED if name in cards[-1]}
    averaged = [
        {name: value for name, value in card.items() if name not in _MEASURED} for card in cards
    ]
    return kept | {
        "made_by": f"lad-agent train average OUT {' '.join(['MODEL'] * len(folders))}",
        "averaged": averaged,
    }
