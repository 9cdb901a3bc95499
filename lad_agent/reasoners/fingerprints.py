"""What tells one model from another; without torch, which takes seconds to load."""

import hashlib
from pathlib import Path
from typing import Any

from lad_agent.errors import ModelError

_HASHED = (".safetensors", ".json", ".jinja", ".txt")
_NOT_HASHED = ("model_card.json",)


def fingerprint(folder: Path, adapter: Path | None = None) -> str:
    """16 hex digits of SHA-256 over every byte that shapes an answer: weights, configuration,
    tokenizer, processor, chat template, witness and adapter.

    Raises:
        ModelError: the folder cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in (folder, adapter) if adapter else (folder,):
            for path in sorted(part.iterdir()):
                if path.suffix in _HASHED and path.name not in _NOT_HASHED and path.is_file():
                    digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
                    _add(path, digest)
            digest.update(b"\0\0")
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error})") from error
    return digest.hexdigest()[:16]


def _add(path: Path, digest: Any) -> None:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
