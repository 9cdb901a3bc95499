"""Bad evidence on purpose: what a camera, a lamp or a cable does to a picture.

Each is a pure function of (picture, strength, seed): RGB in, RGB of the same size out, strength 0
the picture itself, 1 as bad as it gets; in between it grows steadily. They show whether escalation
rises as evidence fades.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Degradation = Callable[[Image.Image, float, int], Image.Image]

_Floats = npt.NDArray[np.float64]


def blur(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """Out of focus: a Gaussian of up to a fifteenth of the shorter side."""
    if not strength:
        return picture.copy()
    return picture.filter(ImageFilter.GaussianBlur(strength * min(picture.size) / 15))


def darkness(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """Too little light, down to none."""
    return _picture(_pixels(picture) * (1 - strength))


def glare(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """A lamp's reflection at a place that the seed draws; at 1 nearly all is white."""
    if not strength:
        return picture.copy()
    pixels = _pixels(picture)
    height, width = pixels.shape[:2]
    x, y = np.random.default_rng(seed).uniform(0.2, 0.8, 2)
    down, across = np.mgrid[0:height, 0:width]
    far = np.hypot(across / width - x, down / height - y)
    light = np.clip(1.3 - far / max(1.5 * strength, 1e-9), 0, 1)[..., None]
    return _picture(pixels + (255 - pixels) * light)


def noise(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """A sensor's noise, up to a standard deviation of 120 of 255."""
    if not strength:
        return picture.copy()
    pixels = _pixels(picture)
    drawn = np.random.default_rng(seed).normal(0, 1, pixels.shape)
    return _picture(pixels + 120 * strength * drawn)


def occlusion(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """A grey thing in front, `strength` of the width across, from a side that the seed draws."""
    pixels = _pixels(picture)
    across = round(strength * picture.width)
    start = 0 if np.random.default_rng(seed).random() < 0.5 else picture.width - across
    pixels[:, start : start + across] = 90.0
    return _picture(pixels)


def crop(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """The camera too near: the middle alone, enlarged; at 1 a tenth of each side."""
    share = 1 - 0.9 * strength
    if share == 1:
        return picture.copy()
    left, top = picture.width * (1 - share) / 2, picture.height * (1 - share) / 2
    box = (left, top, picture.width - left, picture.height - top)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)


def compression(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """JPEG of quality 95 down to 1, of a picture shrunk by up to eight times."""
    if not strength:
        return picture.copy()
    width, height = (max(1, round(side / (1 + 7 * strength))) for side in picture.size)
    return few_pixels(picture, (width, height), round(95 - 94 * strength))


def few_pixels(
    picture: Image.Image,
    size: tuple[int, int],
    quality: int,
    enlarge: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """What is left of an RGB picture as a JPEG of that size (width, height), enlarged again."""
    data = io.BytesIO()
    picture.resize(size, Image.Resampling.BOX).save(data, "JPEG", quality=quality)
    return Image.open(data).resize(picture.size, enlarge)


def mirrored(picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    """The left `strength` of the width from the mirror image; at 1 all of it."""
    pixels = _pixels(picture)
    across = round(strength * picture.width)
    out = pixels.copy()
    out[:, :across] = pixels[:, ::-1][:, :across]
    return _picture(out)


DEGRADATIONS: Mapping[str, Degradation] = {
    "blur": blur,
    "darkness": darkness,
    "glare": glare,
    "noise": noise,
    "occlusion": occlusion,
    "crop": crop,
    "compression": compression,
    "mirrored": mirrored,
}
"""All by name. A wrong product and a wrong reference are no change of the picture."""


def degraded(picture: Image.Image, name: str, strength: float, seed: int = 0) -> Image.Image:
    """The picture with one degradation of `DEGRADATIONS`.

    Raises:
        ValueError: no such degradation, or a strength outside 0 to 1.
    """
    if name not in DEGRADATIONS:
        raise ValueError(f"no degradation {name!r}; known: {', '.join(DEGRADATIONS)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"a strength of {strength:g} is not within 0 and 1")
    return DEGRADATIONS[name](picture.convert("RGB"), strength, seed)


def _pixels(picture: Image.Image) -> _Floats:
    return np.array(picture, dtype=np.float64)


def _picture(pixels: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
