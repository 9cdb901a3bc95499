"""From uint8 pictures to the tower's visual tokens, without one Python object a picture."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from lad_agent.training.pocket.architecture import MERGE, PATCH, PATCHES_A_SIDE, TOKENS


def patches(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Normalised patches as the image processor makes them.

    [n, 196, 196, 3] uint8 -> [n x 196, 1176] float32: patches of 14 px in blocks of 2 x 2, each
    3 channels x 2 frames x 14 x 14, the one frame doubled.
    """
    n, blocks = len(pixels), PATCHES_A_SIDE // MERGE
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    values = (torch.from_numpy(pixels).to(torch.float32) / 255.0 - mean) / std
    values = values.permute(0, 3, 1, 2).reshape(n, 3, blocks, MERGE, PATCH, blocks, MERGE, PATCH)
    values = values.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
    frames = values.expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return frames.reshape(n * PATCHES_A_SIDE**2, -1)


def visual_tokens(
    model: Qwen2_5_VLForConditionalGeneration, pixels: npt.NDArray[np.uint8]
) -> Tensor:
    """Merged visual tokens [n, 49, width] of pictures [n, 196, 196, 3]."""
    grid = torch.tensor([[1, PATCHES_A_SIDE, PATCHES_A_SIDE]]).repeat(len(pixels), 1)
    out = model.model.visual(patches(pixels).to(model.device), grid_thw=grid.to(model.device))
    merged: Tensor = out.pooler_output
    return merged.reshape(len(pixels), TOKENS, -1)
