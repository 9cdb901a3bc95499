"""Tiny data sets in every layout: pictures of 8 x 8 px, each of its own content."""

import json
from pathlib import Path

from PIL import Image

DEFECTS = {"missing_nut": 255, "extra_nut": 254, "scratch": 253}


def picture(path: Path, number: int, size: tuple[int, int] = (8, 8)) -> Path:
    """Write the picture of this number: equal numbers, equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number % 256, number // 256 % 256, 90)).save(path)
    return path


def mask(path: Path, value: int = 255) -> Path:
    """Write a mask with one pixel of `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = Image.new("L", (8, 8))
    grey.putpixel((3, 4), value)
    grey.save(path)
    return path


def loco(root: Path, category: str = "screw_bag", first: int = 0) -> Path:
    """Seven pictures of a category as MVTec LOCO AD unpacks it."""
    folder = root / category
    places = (
        "train/good/000.png", "train/good/001.png", "validation/good/000.png",
        "test/good/000.png", "test/logical_anomalies/000.png",
        "test/logical_anomalies/001.png", "test/structural_anomalies/000.png",
    )  # fmt: skip
    for number, place in enumerate(places, first):
        picture(folder / place, number)
    truth = folder / "ground_truth"
    mask(truth / "logical_anomalies/000/000.png", DEFECTS["missing_nut"])
    mask(truth / "logical_anomalies/001/000.png", DEFECTS["missing_nut"])
    mask(truth / "logical_anomalies/001/001.png", DEFECTS["extra_nut"])
    mask(truth / "structural_anomalies/000/000.png", DEFECTS["scratch"])
    config = [{"defect_name": name, "pixel_value": value} for name, value in DEFECTS.items()]
    (folder / "defects_config.json").write_text(json.dumps(config))
    return folder


def mvtec_ad(root: Path) -> Path:
    """Four pictures of a category as MVTec AD unpacks it."""
    folder = root / "bottle"
    for number, place in enumerate(
        ("train/good/000.png", "train/good/001.png", "test/good/000.png", "test/crack/000.png")
    ):
        picture(folder / place, number)
    mask(folder / "ground_truth/crack/000_mask.png")
    return folder


def visa(root: Path) -> Path:
    """Three pictures as VisA unpacks them."""
    folder = root / "VisA"
    normal, faulty = "candle/Data/Images/Normal", "candle/Data/Images/Anomaly"
    covered = "candle/Data/Masks/Anomaly/000.png"
    picture(folder / normal / "0000.JPG", 0)
    picture(folder / normal / "0001.JPG", 1000)
    picture(folder / faulty / "000.JPG", 65000)
    mask(folder / covered, 1)
    lines = (
        "object,split,label,image,mask",
        f"candle,train,normal,{normal}/0000.JPG,",
        f"candle,test,normal,{normal}/0001.JPG,",
        f"candle,test,anomaly,{faulty}/000.JPG,{covered}",
    )
    (folder / "split_csv").mkdir()
    (folder / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return folder


def own(root: Path, good: int = 6, bad: int = 4) -> Path:
    """A user's folder: good pictures, and bad ones of two causes."""
    folder = root / "tray"
    for number in range(good):
        picture(folder / "good" / f"{number}.png", number)
    for number in range(bad):
        cause = "no nut" if number % 2 else "scratched"
        picture(folder / "bad" / cause / f"{number}.png", 1000 + number)
    return folder
