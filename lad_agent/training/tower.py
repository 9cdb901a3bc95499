"""What the vision tower is spared: of equal pictures in a batch it reads one."""

from typing import Any

import torch
from torch import Tensor


def read_once(model: Any) -> None:
    """Let the tower of a Qwen2.5-VL, with an adapter or without, read equal pictures once a batch.

    In GRPO a prompt comes as often as it is answered: of eight answers each to eight prompts with a
    reference at most 16 of 128 pictures are different. Their tokens, and the gradients that reach
    the tower, are the same as without.
    """
    inner = (model.get_base_model() if hasattr(model, "get_base_model") else model).model
    read = inner.get_image_features

    # transformers' generate passes arguments by these very names.
    def features(pixel_values: Tensor, image_grid_thw: Tensor, **named: Any) -> Any:
        pictures = torch.split(pixel_values, image_grid_thw.prod(-1).tolist())
        places: dict[tuple[Any, ...], int] = {}
        firsts: list[int] = []
        shown: list[int] = []
        for number, (picture, grid) in enumerate(zip(pictures, image_grid_thw, strict=True)):
            plain = picture.detach().to("cpu", torch.float32).numpy()
            place = places.setdefault((*grid.tolist(), plain.tobytes()), len(firsts))
            if place == len(firsts):
                firsts.append(number)
            shown.append(place)
        found = read(torch.cat([pictures[n] for n in firsts]), image_grid_thw[firsts], **named)
        found.pooler_output = tuple(found.pooler_output[place] for place in shown)
        return found

    inner.get_image_features = features
