"""Trainers that go on from a checkpoint of a model that was opened from a folder.

transformers saves such a model under the names that its folder used and loads the checkpoint under
those of its own code, without error: nothing is loaded, and training goes on from the base.
"""

from typing import Any

from transformers import Qwen2_5_VLForConditionalGeneration

from lad_agent.errors import CheckFailed


def resumable(trainer: type[Any]) -> type[Any]:
    """`trainer` (one of TRL's), loading the weights of its checkpoints under any names."""

    class Resumable(trainer):  # type: ignore[misc]
        def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
            own = self.model if model is None else model
            if self.is_fsdp_enabled or not isinstance(own, Qwen2_5_VLForConditionalGeneration):
                super()._load_from_checkpoint(checkpoint, model)
                return
            saved, found = type(own).from_pretrained(
                checkpoint, dtype=own.dtype, local_files_only=True, output_loading_info=True
            )
            if found["missing_keys"]:
                raise CheckFailed(f"{checkpoint}: lacks {sorted(found['missing_keys'])[0]}")
            own.load_state_dict(saved.state_dict())

    Resumable.__name__ = trainer.__name__
    return Resumable
