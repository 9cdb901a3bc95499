"""A small kit to test with: rings and plates on a grey fixture, and a lid in one of two colours."""

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = (320, 240)
RECIPE = """\
product: spare_kit
references: [reference.png]
rules:
  - {id: R1, text: exactly 2 rings}
  - {id: R2, text: exactly 1 plate}
  - {id: R3, text: lid is red}
  - {id: R4, text: exactly 0 damaged places}
"""


def write_kit(folder: Path, recipe: str = RECIPE) -> Path:
    """Five cut-outs each, three fixtures, a recipe and its reference."""
    for number in range(5):
        save(ring(number), folder / f"parts/rings/{number}.png")
        save(plate(number, (70, 90, 60)), folder / f"parts/plates/{number}.png")
        for value, colour in (("red", (190, 40, 40)), ("blue", (40, 60, 190))):
            save(plate(number, colour), folder / f"parts/lid/{value}/{number}.png")
    for number in range(3):
        save(fixture(number), folder / f"fixture/{number}.png")
    save(fixture(9), folder / "reference.png")
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return folder


def write_paired(folder: Path, rules: tuple[str, ...]) -> Path:
    """The kit with a cap in green or black and a tag in the colours of the lid, under `rules`."""
    lines = [f"  - {{id: R{n}, text: {json.dumps(rule)}}}" for n, rule in enumerate(rules, 1)]
    head = RECIPE.partition("  - ")[0]
    write_kit(folder, head + "\n".join(lines) + "\n")
    colours = {
        "cap/green": (40, 160, 60), "cap/black": (20, 20, 20),
        "tag/red": (180, 60, 60), "tag/blue": (60, 80, 180),
    }  # fmt: skip
    for name, colour in colours.items():
        for number in range(5):
            save(plate(number, colour), folder / f"parts/{name}/{number}.png")
    return folder


def ring(number: int) -> Image.Image:
    """A disc of 30 to 34 pixels with a hole."""
    side = 30 + number
    image = Image.new("RGBA", (side + 6, side + 6))
    draw = ImageDraw.Draw(image)
    draw.ellipse((3, 3, side + 2, side + 2), fill=(210, 180, 60))
    draw.ellipse((13, 13, side - 8, side - 8), fill=(0, 0, 0, 0))
    return image


def plate(number: int, colour: tuple[int, int, int]) -> Image.Image:
    """A rectangle of 40 x 24 pixels or a little more."""
    image = Image.new("RGBA", (50, 40))
    ImageDraw.Draw(image).rectangle((4, 6, 43 + number, 29 + number), fill=colour)
    return image


def fixture(number: int) -> Image.Image:
    """A grey board with some grain."""
    grain = np.random.default_rng(number).normal(150, 6, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(grain.clip(0, 255).astype(np.uint8))


def write_boxes(folder: Path, part: str, number: int) -> None:
    """A photograph with discs of 40 pixels, and a box around each in `parts.json`."""
    picture = fixture(20)
    draw = ImageDraw.Draw(picture)
    boxes = []
    for n in range(number):
        x, y = 10 + 60 * (n % 5), 20 + 60 * (n // 5)
        draw.ellipse((x, y, x + 40, y + 40), fill=(30, 60, 120))
        boxes.append({"image": "photo.png", "part": part, "box": [x - 3, y - 3, x + 43, y + 43]})
    save(picture, folder / "photo.png")
    (folder / "parts.json").write_text(json.dumps(boxes), encoding="utf-8")


def write_labelled(folder: Path, number: int) -> None:
    """As many good and bad pictures, with no more in them than noise."""
    rng = random.Random(3)
    for name in ("good", "bad"):
        for n in range(number):
            save(fixture(rng.getrandbits(30)), folder / name / f"{n}.png")


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
