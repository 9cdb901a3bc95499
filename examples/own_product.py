"""A product that no model knows: a sewing kit, rendered as a user would photograph it.

    python examples/own_product.py FOLDER
    lad-agent train product FOLDER/sewing_kit --out FOLDER/run

`FOLDER/sewing_kit` is what a user brings: twelve cut-outs of each part, five pictures of the empty
fixture, the rules, and thirty good and thirty bad pictures. `FOLDER/pictures` are others to judge
by, with parts drawn anew: nothing in them is a cut-out. See docs/own-product.md.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

SIZE = (480, 400)
COUNTS = {"buttons": 3, "spools": 2, "thimbles": 1}
CARDS = {"blue": (52, 84, 160), "red": (176, 48, 52), "green": (58, 128, 76)}
RECIPE = """\
product: sewing_kit
references: [reference.png]
rules:
  - {id: R1, text: exactly 3 buttons}
  - {id: R2, text: exactly 2 spools}
  - {id: R3, text: exactly 1 thimble}
  - {id: R4, text: card is blue}
"""
FINE = 4
"""Parts are drawn this much larger, and shrunk: smooth edges."""

Colour = tuple[int, int, int]


def write(folder: Path, own: int = 60, others: int = 400) -> None:
    """Write the user's folder with `own` labelled pictures, and `others` to judge by."""
    rng = random.Random(5)
    kit, judged = folder / "sewing_kit", folder / "pictures" / "sewing_kit"
    for noun, draw in PARTS.items():
        for number in range(12):
            save(draw(rng), kit / "parts" / noun / f"{number:02d}.png")
    for value, colour in CARDS.items():
        for number in range(6):
            save(card(rng, colour), kit / "parts" / "card" / value / f"{number:02d}.png")
    for number in range(5):
        save(photograph(rng, tray(rng)), kit / "fixture" / f"{number}.jpg")
    for number in range(own // 2):
        save(laid_out(rng, COUNTS, "blue"), kit / "good" / f"{number:02d}.png")
        cause, picture = bad(rng)
        save(picture, kit / "bad" / cause / f"{number:02d}.png")
    for number in range(others // 2):
        save(laid_out(rng, COUNTS, "blue"), judged / "good" / f"{number:03d}.png")
        cause, picture = bad(rng)
        save(picture, judged / "bad" / cause / f"{number:03d}.png")
    for place in (kit, judged):
        save(laid_out(rng, COUNTS, "blue"), place / "reference.png")
        (place / "recipe.yaml").write_text(RECIPE, encoding="utf-8")


def bad(rng: random.Random) -> tuple[str, Image.Image]:
    """One rule broken, and how."""
    broken = rng.choice([*COUNTS, "card"])
    if broken == "card":
        colour = rng.choice([None, "red", "green"])
        return f"{colour or 'no'} card", laid_out(rng, COUNTS, colour)
    number = rng.choice([n for n in range(COUNTS[broken] + 3) if n != COUNTS[broken]])
    return f"{number} {broken}", laid_out(rng, {**COUNTS, broken: number}, "blue")


def laid_out(rng: random.Random, counts: dict[str, int], colour: str | None) -> Image.Image:
    """A photograph of a tray with as many of each part, and a needle card of that colour."""
    picture, taken = tray(rng), Image.new("L", SIZE)
    parts = [PARTS[noun](rng) for noun, number in counts.items() for _ in range(number)]
    parts += [card(rng, CARDS[colour])] if colour else []
    for part in sorted(parts, key=lambda one: -one.width * one.height):
        turned, at = free_place(rng, part, taken)
        alpha, shade = turned.getchannel("A"), Image.new("L", SIZE)
        shade.paste(alpha.point([v * 0.45 for v in range(256)]), (at[0] + 4, at[1] + 5))
        picture.paste((18, 14, 10), (0, 0), shade.filter(ImageFilter.GaussianBlur(4)))
        picture.paste(turned, at, turned)
        taken.paste(255, at, alpha)
    return photograph(rng, picture)


def free_place(
    rng: random.Random, part: Image.Image, taken: Image.Image
) -> tuple[Image.Image, tuple[int, int]]:
    """The part turned, and where it then touches no other."""
    while True:
        turned = part.rotate(rng.uniform(0, 360), Image.Resampling.BICUBIC, expand=True)
        x, y = (rng.randint(24, SIZE[n] - 24 - turned.size[n]) for n in (0, 1))
        under = taken.crop((x, y, x + turned.width, y + turned.height))
        if ImageChops.multiply(under, turned.getchannel("A")).getextrema() == (0, 0):
            return turned, (x, y)


def tray(rng: random.Random) -> Image.Image:
    """An empty tray of cork with a wooden rim."""
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, 9, (SIZE[1], SIZE[0], 1))
    cork = np.array([178, 146, 110]) * rng.uniform(0.94, 1.06) + grain
    picture = Image.fromarray(cork.clip(0, 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(1.1))
    box = (0, 0, SIZE[0] - 1, SIZE[1] - 1)
    ImageDraw.Draw(picture).rectangle(box, outline=(104, 72, 48), width=12)
    return picture


def photograph(rng: random.Random, picture: Image.Image) -> Image.Image:
    """Turned a little, in some light, slightly blurred, with noise."""
    angle, shift = rng.uniform(-4, 4), (rng.uniform(-6, 6), rng.uniform(-6, 6))
    turned = picture.rotate(
        angle, Image.Resampling.BICUBIC, translate=shift, fillcolor=(86, 80, 76)
    )
    lit = ImageEnhance.Brightness(turned).enhance(rng.uniform(0.8, 1.15))
    soft = np.asarray(lit.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9))))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 5), soft.shape)
    return Image.fromarray((soft + noise).clip(0, 255).astype(np.uint8))


def button(rng: random.Random) -> Image.Image:
    """A disc with a raised rim and four holes."""
    colour = rng.choice([(206, 62, 74), (226, 196, 90), (70, 120, 150)])
    image, draw, w, h = canvas(side := rng.randint(42, 48), side)
    draw.ellipse((0, 0, w, h), fill=tone(colour, 0.78))
    draw.ellipse((0.13 * w, 0.13 * h, 0.87 * w, 0.87 * h), fill=colour)
    for x, y in ((0.4, 0.4), (0.6, 0.4), (0.4, 0.6), (0.6, 0.6)):
        hole = ((x - 0.055) * w, (y - 0.055) * h, (x + 0.055) * w, (y + 0.055) * h)
        draw.ellipse(hole, fill=(40, 32, 30))
    return shrunk(image)


def spool(rng: random.Random) -> Image.Image:
    """A spool from its side: wooden ends, wound thread between them."""
    thread = rng.choice([(60, 60, 66), (228, 226, 218), (150, 70, 130)])
    image, draw, w, h = canvas(rng.randint(58, 64), rng.randint(42, 46))
    draw.rectangle((0, 0, 0.16 * w, h), fill=(206, 172, 122))
    draw.rectangle((0.84 * w, 0, w, h), fill=(206, 172, 122))
    draw.rectangle((0.16 * w, 0.12 * h, 0.84 * w, 0.88 * h), fill=thread)
    for n in range(20):
        x = (0.17 + 0.033 * n) * w
        draw.line((x, 0.12 * h, x + FINE, 0.88 * h), fill=tone(thread, 0.8), width=FINE)
    return shrunk(image)


def thimble(rng: random.Random) -> Image.Image:
    """A metal thimble from its side, dimpled."""
    metal = rng.choice([(196, 198, 204), (214, 196, 150)])
    image, draw, w, h = canvas(rng.randint(44, 48), rng.randint(54, 60))
    draw.polygon([(0.2 * w, 0.12 * h), (0.8 * w, 0.12 * h), (w, h), (0, h)], fill=metal)
    draw.ellipse((0.2 * w, 0, 0.8 * w, 0.24 * h), fill=tone(metal, 1.1))
    draw.rectangle((0, 0.86 * h, w, h), fill=tone(metal, 0.7))
    for n in range(15):
        x, y = (0.3 + 0.17 * (n % 3)) * w, (0.3 + 0.1 * (n // 3)) * h
        draw.ellipse((x, y, x + 3 * FINE, y + 3 * FINE), fill=tone(metal, 0.55))
    return shrunk(image)


def card(rng: random.Random, colour: Colour) -> Image.Image:
    """A card with three needles through it."""
    image, draw, w, h = canvas(rng.randint(74, 80), rng.randint(56, 60))
    draw.rectangle((0, 0, w, h), fill=colour)
    draw.rectangle((0.1 * w, 0.1 * h, 0.9 * w, 0.25 * h), fill=(240, 236, 224))
    for y in (0.45, 0.62, 0.79):
        draw.line((0.14 * w, y * h, 0.86 * w, y * h), fill=(222, 224, 228), width=FINE * 2)
    return shrunk(image)


PARTS: dict[str, Callable[[random.Random], Image.Image]] = {
    "buttons": button, "spools": spool, "thimbles": thimble,
}  # fmt: skip


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int, int]:
    """Something transparent to draw on, and its size in pixels."""
    image = Image.new("RGBA", (width * FINE, height * FINE))
    return image, ImageDraw.Draw(image), image.width - 1, image.height - 1


def shrunk(image: Image.Image) -> Image.Image:
    """What was drawn, at its size in the pictures, with a clear rim."""
    wide = ImageOps.expand(image, 2 * FINE)
    return wide.resize((wide.width // FINE, wide.height // FINE), Image.Resampling.LANCZOS)


def tone(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
