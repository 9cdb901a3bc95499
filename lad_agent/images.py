"""Image files in, upright RGB pictures out; a gate before them that only sends parts to a person.

Nothing here passes a part: a file that cannot be read, and a picture that is too dark, too bright,
blurred, too small or noise, is a reason for NotDecidable.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from lad_agent.errors import RecipeError, UnreadableInput
from lad_agent.judgement import Reason
from lad_agent.recipe import Recipe, Region, load

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
"""File names that a folder is searched for."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""What is decoded; a closed list, because some of Pillow's formats start other programs."""

GATED = frozenset(
    {
        Reason.UNREADABLE,
        Reason.TOO_DARK,
        Reason.TOO_BRIGHT,
        Reason.BLURRED,
        Reason.TOO_SMALL,
        Reason.NOISE,
    }
)
"""Reasons that no reasoner could have helped: its picture was not judged at all."""

MAX_PIXELS = 64_000_000
MAX_BYTES = 1_000_000_000


@dataclass(frozen=True)
class ReadImage:
    """A decoded file: RGB, turned upright; `sha256` is that of the file's bytes."""

    image: Image.Image
    sha256: str

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height


@dataclass(frozen=True)
class Look:
    """What is judged of a file: the prepared picture, and why it is not worth judging, or None.

    `sha256` is that of the file's bytes.
    """

    picture: Image.Image
    sha256: str
    reason: Reason | None


@dataclass(frozen=True)
class Quality:
    """Grey values of a picture shrunk to 98 x 98 px, 0 to 255.

    `dark` and `bright` are the 2nd and 98th percentile, `edges` is the 99th percentile of the
    difference over two pixels. At 196 px `correlation` is that of each pixel with its right
    neighbour (white noise 0, a photograph near 1), and `noise` the standard deviation of what its
    neighbours do not foretell: Immerkaer, Fast Noise Variance Estimation (1996), by the median.
    """

    dark: float
    bright: float
    edges: float
    correlation: float
    noise: float


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes.

    Raises:
        UnreadableInput: not a file, no right to read it, or far too large.
    """
    return hashlib.sha256(_bytes(path)).hexdigest()


def find(paths: Iterable[Path], sha256: str | None) -> Path | None:
    """The first of `paths` that still holds the bytes of that SHA-256; None where none does."""
    for path in paths:
        try:
            if file_sha256(path) == sha256:
                return path
        except UnreadableInput:
            continue
    return None


def find_references(recipe_path: Path, hashes: Sequence[str]) -> list[Path | None]:
    """The reference pictures with these SHA-256, among `reference_files`; None: gone."""
    files = reference_files(recipe_path)
    return [find(files, sha256) for sha256 in hashes]


def reference_files(recipe_path: Path) -> tuple[Path, ...]:
    """Where a recipe's reference pictures may lie: those it names now, then pictures beside it."""
    try:
        named = load(recipe_path).references
    except (RecipeError, OSError, ValueError):
        named = ()
    try:
        beside = [p for p in sorted(recipe_path.parent.iterdir()) if p.suffix.lower() in SUFFIXES]
    except (OSError, ValueError):
        beside = []
    return (*named, *beside)


def read(path: Path, *, max_pixels: int = MAX_PIXELS) -> ReadImage:
    """Decode one image: EXIF-turned, 16 bits cut to 8, palettes and CMYK made RGB.

    Transparent pixels are laid on white. Of a file with several pictures none is chosen, except
    that the first of a JPEG with previews is its picture.

    Raises:
        UnreadableInput: names the file, what is wrong and the remedy.
    """
    data = _bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _refuse_unsuitable(opened, path, max_pixels)
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            picture = _rgb(upright, path)
    except UnreadableInput:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableInput(f"{path}: too many pixels; shrink it or cut it") from error
    except Exception as error:
        # Pillow's decoders raise anything at all on damaged bytes.
        raise UnreadableInput(f"{path}: {_fault(error, data)}; save it again as PNG") from error
    return ReadImage(picture, hashlib.sha256(data).hexdigest())


def prepare(image: Image.Image, region: Region, size: int) -> Image.Image:
    """Cut to the region and resize to `size` x `size` (bicubic, antialiased): what is judged."""
    shown = cut(image, region)
    if shown.size == (size, size):
        return shown
    return shown.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)


def cut(image: Image.Image, region: Region) -> Image.Image:
    """The part of the picture that lies in the region."""
    box = _box(image, region)
    return image if box == (0, 0, *image.size) else image.crop(box)


def look(path: Path, recipe: Recipe, *, max_pixels: int = MAX_PIXELS) -> Look:
    """Read one image as `recipe` wants it judged, and hold it against the gate.

    Raises:
        UnreadableInput: as `read`.
    """
    found = read(path, max_pixels=max_pixels)
    picture = prepare(found.image, recipe.region, recipe.image_size)
    return Look(picture, found.sha256, gate(picture, shorter_side(found.image, recipe.region)))


def references(recipe: Recipe) -> tuple[Image.Image, ...]:
    """The recipe's reference pictures, prepared as the query is.

    Raises:
        UnreadableInput: a reference has gone, changed since the recipe was read, or is no image.
    """
    pictures = []
    for path, sha256 in zip(recipe.references, recipe.reference_sha256, strict=True):
        found = read(path)
        if found.sha256 != sha256:
            raise UnreadableInput(f"{path}: the reference has changed; start again")
        pictures.append(prepare(found.image, recipe.region, recipe.image_size))
    return tuple(pictures)


def gate(picture: Image.Image, shorter_side: int) -> Reason | None:
    """Why a prepared picture is not worth judging, or None.

    `shorter_side` is that of the region before it was resized (see `shorter_side`). The
    thresholds let every picture pass that training's lighting, blur and noise can make, and stop
    a wall, a lens cap, a lamp and noise.
    """
    if shorter_side < MIN_SIDE_SHARE * picture.width:
        return Reason.TOO_SMALL
    quality = measure(picture)
    if quality.bright < MIN_BRIGHT:
        return Reason.TOO_DARK
    if quality.dark > MAX_DARK:
        return Reason.TOO_BRIGHT
    if quality.edges < MIN_EDGES:
        return Reason.BLURRED
    if quality.correlation < MIN_CORRELATION or quality.noise > MAX_NOISE:
        return Reason.NOISE
    return None


def headroom(picture: Image.Image) -> float:
    """How far a prepared picture is from the nearest limit of the gate: 0 at it or beyond, up to 1.

    Light and sharpness in one number, for the confidence model.
    """
    found = measure(picture)
    left = (
        (found.bright - MIN_BRIGHT) / (255 - MIN_BRIGHT),
        (MAX_DARK - found.dark) / MAX_DARK,
        1 - MIN_EDGES / max(found.edges, MIN_EDGES),
        (found.correlation - MIN_CORRELATION) / (1 - MIN_CORRELATION),
        (MAX_NOISE - found.noise) / MAX_NOISE,
    )
    return float(min(1.0, max(0.0, min(left))))


def shorter_side(image: Image.Image, region: Region) -> int:
    """The shorter side of the region in pixels of the image."""
    left, top, right, bottom = _box(image, region)
    return min(right - left, bottom - top)


MIN_SIDE_SHARE = 0.5
MIN_BRIGHT = 45.0
MAX_DARK = 225.0
MIN_EDGES = 18.0
MIN_CORRELATION = 0.55
MAX_NOISE = 20.0

_FINE, _COARSE = 196, 98


def measure(picture: Image.Image) -> Quality:
    """What the gate looks at, whatever the picture's size."""
    grey = picture.convert("L")
    if grey.size != (_FINE, _FINE):
        grey = grey.resize((_FINE, _FINE), Image.Resampling.BICUBIC)
    fine = np.asarray(grey, np.float32)
    coarse = np.asarray(grey.resize((_COARSE, _COARSE), Image.Resampling.BOX), np.float32)
    dark, bright = np.percentile(coarse, (2, 98))
    across = np.abs(coarse[:, 2:] - coarse[:, :-2])
    down = np.abs(coarse[2:, :] - coarse[:-2, :])
    edges = max(np.percentile(across, 99), np.percentile(down, 99))
    a, b = fine[:, :-1] - fine.mean(), fine[:, 1:] - fine.mean()
    spread = float((a * a).mean() * (b * b).mean()) ** 0.5
    correlation = float((a * b).mean()) / spread if spread > 1e-6 else 1.0
    return Quality(float(dark), float(bright), float(edges), correlation, _noise(fine))


def _noise(grey: npt.NDArray[np.float32]) -> float:
    second = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    mixed = second[:-2] - 2 * second[1:-1] + second[2:]
    gain, normal = 6.0, 0.6745  # of white noise in `mixed`, and of its median
    return float(np.median(np.abs(mixed))) / (gain * normal)


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise UnreadableInput(f"{path}: not a file; give an image")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UnreadableInput(f"{path}: {size / 1e9:.1f} GB; give an image below 1 GB")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableInput(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableInput(f"{path}: cannot be read ({reason}); check its rights") from error


def _refuse_unsuitable(image: Image.Image, path: Path, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise UnreadableInput(
            f"{path}: {pixels / 1e6:.0f} million pixels, the limit is {max_pixels / 1e6:.0f}; "
            "shrink it or cut it"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UnreadableInput(f"{path}: {frames} pictures in one file; save the one to inspect")


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise UnreadableInput(f"{path}: 32 bits a pixel; save it with 8 or 16")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableInput(f"{path}: floating-point pixels; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        laid = Image.new("RGBA", image.size, "white")
        laid.alpha_composite(image.convert("RGBA"))
        return laid.convert("RGB")
    return image.convert("RGB")


def _box(image: Image.Image, region: Region) -> tuple[int, int, int, int]:
    return (
        round(region.left * image.width),
        round(region.top * image.height),
        max(round(region.right * image.width), round(region.left * image.width) + 1),
        max(round(region.bottom * image.height), round(region.top * image.height) + 1),
    )


def _fault(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    words = " ".join(str(error).split()) or type(error).__name__
    return f"damaged ({words[:120]})"
