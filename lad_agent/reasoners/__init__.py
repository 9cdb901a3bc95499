"""Reasoners: what judges an image. `open_reasoner` finds the right one; torch is loaded by then."""

from pathlib import Path
from urllib.parse import urlsplit

from lad_agent.errors import ModelError, UsageError
from lad_agent.reasoners.base import Question, Reasoner

__all__ = ["EMBEDDED", "Question", "Reasoner", "open_reasoner"]

EMBEDDED = Path(__file__).parents[1] / "models" / "pocket"
"""The folder of the model that comes with the package."""


def open_reasoner(
    spec: str | None = None,
    *,
    device: str = "auto",
    adapter: Path | None = None,
    max_batch: int = 32,
    max_wait_s: float = 0.02,
    queue: int = 256,
    timeout_s: float = 60.0,
) -> Reasoner:
    """Open a reasoner; close it with `aclose` in the event loop that used it.

    `spec` is None or `pocket` for the embedded model, the path of a Qwen2.5-VL folder or of a run
    that has made one, or `http(s)://host:port/v1#model` for an OpenAI-compatible server. `device`,
    `adapter` (a LoRA folder), `max_batch` and `max_wait_s` are for local models, `timeout_s` for
    servers; `queue` is how many questions may be under way.

    Raises:
        UsageError: `spec` is none of these, or a run that has made an adapter.
        ModelError: the folder or the adapter cannot be used.
        PrerequisiteError: the device is not there.
    """
    if spec is not None and spec.startswith(("http://", "https://")):
        url = urlsplit(spec)
        if not url.fragment or not url.netloc:
            raise UsageError(f"{spec}: name the model after a #, as http://localhost:8000/v1#model")
        if adapter is not None:
            raise UsageError("an adapter belongs to the server: vllm serve --lora-modules")
        from lad_agent.reasoners.served import ServedReasoner

        base_url = url._replace(fragment="").geturl()
        return ServedReasoner(base_url, url.fragment, timeout_s=timeout_s, max_in_flight=queue)
    folder = model_folder(spec)
    if folder == EMBEDDED and not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: the embedded model is missing; run lad-agent train pocket")
    from lad_agent.reasoners.batching import MicroBatched
    from lad_agent.reasoners.local import TransformersReasoner

    local = TransformersReasoner(folder, device=device, adapter=adapter, max_batch=max_batch)
    return MicroBatched(local, max_batch=max_batch, max_wait_s=max_wait_s, queue=queue)


def model_folder(spec: str | None) -> Path:
    """The folder of a local model: the embedded one, the one named, or what the run in it has made.

    Raises:
        UsageError: the run has made an adapter.
    """
    if spec is None or spec == "pocket":
        return EMBEDDED
    path = Path(spec)
    if not (path / "run.json").is_file():
        return path
    if (path / "adapter").is_dir():
        raise UsageError(
            f"{path}: a run that has made an adapter; give --reasoner BASE --adapter "
            f"{path / 'adapter'}"
        )
    return path / "model"
