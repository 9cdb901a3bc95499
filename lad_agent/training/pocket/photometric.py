"""Other exposures of a training picture: white balance, gamma, grain of the ground, focus.

What SynLOCO's camera varies is learned by heart; a tint or a grain that no training picture has
should not turn a compartment crowded.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
SHARE = 0.5
"""Of the pictures that are exposed anew."""
GAIN, GAMMA, GRAIN, BLUR = (0.88, 1.12), (0.8, 1.25), 14.0, 1.5
"""Factor of each channel; exponent; greatest standard deviation of the grain, of 255, and of the
blur, in pixels."""


def exposed(rng: np.random.Generator, image: Pixels) -> Pixels:
    """The picture, uint8 [side, side, 3], as another camera and ground might give it."""
    if rng.random() >= SHARE:
        return image
    ramp = np.linspace(0.0, 1.0, 256) ** rng.uniform(*GAMMA)
    table = np.clip(255 * ramp[:, None] * rng.uniform(*GAIN, 3), 0, 255)
    out = cv2.LUT(image, table.astype(np.uint8)[None])
    if rng.random() < 0.5:
        side = image.shape[0]
        coarse = rng.normal(0.0, rng.uniform(0.0, GRAIN), tuple(rng.integers(3, side // 2, 2)))
        grain = cv2.resize(coarse.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        out = np.clip(out + grain[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.2, BLUR))
    return np.asarray(out, np.uint8)


def exposures(seed: int, positions: Sequence[int], images: Pixels) -> Pixels:
    """Pictures uint8 [k, side, side, 3], each exposed by its position in the order of training."""
    drawn = (np.random.default_rng([seed, position, 1]) for position in positions)
    return np.stack([exposed(rng, image) for rng, image in zip(drawn, images, strict=True)])
