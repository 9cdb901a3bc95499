"""Spoiled pictures for training: glare, blur, few pixels, and a camera that is too near.

Each is drawn so that nothing to judge is lost, or so that nobody could still judge the part; what
lies between is not drawn, for nobody can say which it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from lad_agent.training import degradations
from lad_agent.training.pocket.architecture import IMAGE_SIZE
from lad_agent.training.synloco.nuisance import Photo
from lad_agent.training.synloco.scene import Image as Pixels

Floats = npt.NDArray[np.float64]

TRIES = 20
"""Before a picture is left as it is: not every one can be spoiled in every way."""
DIM, BRIGHT = 0.1, 0.55
"""Light of a glare, 1 for white: as much is nothing on a product, and a part in as much is lost."""
SHARP, BLURRED = 1.4, 4.0
"""Standard deviations of a blur in pixels of a picture of 196: at most, and at least."""
ENOUGH, FEW = 120, 66
"""Pixels across: at least, and at most."""


@dataclass(frozen=True)
class Shown:
    """Where a photograph shows what is judged; all in shares of the picture.

    `outlines` of the parts, each [n, 2] of x and y. A thing from the left, below, the right or
    above hides nothing up to `free`, and leaves nothing to judge from `hides` on.
    """

    outlines: Sequence[Floats]
    free: Sequence[float]
    hides: Sequence[float]

    @classmethod
    def of(cls, photo: Photo, free: Sequence[float], hides: Sequence[float]) -> "Shown":
        """Of a photograph's own parts."""
        return cls([np.asarray(p.outline) / len(photo.image) for p in photo.parts], free, hides)


Way = Callable[[np.random.Generator, Pixels, Shown, bool], tuple[Pixels, bool]]
"""A picture spoiled so that it can be judged as before, or cannot, and which it is."""


def spoiled(rng: np.random.Generator, image: Pixels, shown: Shown) -> tuple[Pixels, bool]:
    """A picture [edge, edge, 3] that is spoiled, and whether it can be judged as before."""
    ways = (glare, glare, blur, few_pixels, few_pixels, too_near)
    way = ways[int(rng.integers(len(ways)))]
    return way(rng, image, shown, bool(rng.random() < 0.5))


def glare(
    rng: np.random.Generator, image: Pixels, shown: Shown, legible: bool
) -> tuple[Pixels, bool]:
    """A lamp's reflection, beside the product or over a part of it."""
    edge = image.shape[0]
    down, across = np.mgrid[0:edge, 0:edge] / edge
    judged = _within(across, down, shown.free if legible else shown.hides)
    points = [np.clip((one * edge).astype(int), 0, edge - 1).T for one in shown.outlines]
    for _ in range(TRIES):
        x, y = rng.uniform(-0.1, 1.1, 2)
        reach, flat = 0.08 * 5 ** rng.random(), rng.uniform(0.7, 1.4)
        far = np.hypot((across - x) * flat, (down - y) / flat) / reach
        light = np.clip(rng.uniform(1.05, 1.6) - far, 0, 1) ** rng.uniform(0.8, 1.4)
        most = light[judged].max(initial=0.0)
        if legible:
            fits = most < DIM
        else:
            fits = most > BRIGHT or any(light[rows, cols].mean() > BRIGHT for cols, rows in points)
        if fits:
            colour = rng.uniform(235, 255, 3)
            lit = image + (colour - image) * light[..., None]
            return np.clip(np.rint(lit), 0, 255).astype(np.uint8), legible
    return image, True


def blur(
    rng: np.random.Generator, image: Pixels, shown: Shown, legible: bool
) -> tuple[Pixels, bool]:
    """Out of focus."""
    sigma = rng.uniform(0.5, SHARP) if legible else BLURRED * 4 ** rng.random()
    out = Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma * len(image) / IMAGE_SIZE))
    return np.asarray(out), legible


def few_pixels(
    rng: np.random.Generator, image: Pixels, shown: Shown, legible: bool
) -> tuple[Pixels, bool]:
    """A JPEG of few pixels, enlarged again."""
    across = int(rng.uniform(ENOUGH, IMAGE_SIZE) if legible else FEW / 3 ** rng.random())
    quality = int(rng.uniform(60, 96) if legible else rng.uniform(3, 75))
    enlarge = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)[int(rng.integers(2))]
    picture = Image.fromarray(image)
    out = degradations.few_pixels(picture, (across, across), quality, enlarge)
    return np.asarray(out), legible


def too_near(
    rng: np.random.Generator, image: Pixels, shown: Shown, legible: bool
) -> tuple[Pixels, bool]:
    """A section of the picture in which a part is missing, enlarged; else all of it."""
    if legible:
        return image, True
    edge = image.shape[0]
    for _ in range(TRIES):
        share = rng.uniform(0.15, 0.9)
        left, above = (rng.uniform(0.2, 0.8, 2) * (1 - share)).tolist()
        cut = (left, 1 - share - above, 1 - share - left, above)
        if any(gone >= hides for gone, hides in zip(cut, shown.hides, strict=True)):
            box = (left * edge, above * edge, (left + share) * edge, (above + share) * edge)
            out = Image.fromarray(image).resize((edge, edge), Image.Resampling.BICUBIC, box=box)
            return np.asarray(out), False
    return image, True


def _within(across: Floats, down: Floats, sides: Sequence[float]) -> npt.NDArray[np.bool_]:
    left, below, right, above = sides
    return (across >= left) & (across <= 1 - right) & (down >= above) & (down <= 1 - below)
