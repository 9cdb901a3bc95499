"""MVTec AD as unpacked.

<category>/train/good/000.png   test/good/  test/<defect>/
           ground_truth/<defect>/000_mask.png
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from lad_agent.training.sources.example import Example, Fault, here_or_below, labelled, pictures

LAYOUT = "MVTec AD"


def categories(path: Path) -> list[Path]:
    """`path` if it is a category, else the categories in it."""
    return here_or_below(path, _is_category)


def folders(path: Path) -> Collection[str]:
    """The folders in `path` that are read, by name."""
    found = categories(path)
    if found == [path]:
        return ("train", "test", "ground_truth")
    return [category.name for category in found]


def read(path: Path) -> Iterator[Example | Fault]:
    """The pictures of a category, or of all in a folder; the cause is the defect's folder."""
    for folder in categories(path):
        wanted = ("train/good", "test/good", "ground_truth")
        if lacking := [name for name in wanted if not (folder / name).is_dir()]:
            yield Fault(f"{folder}: lacks {', '.join(lacking)}; unpack the archive again")
        for image in pictures(folder / "train" / "good"):
            yield labelled(image, folder.name, "train", "good")
        for image in pictures(folder / "test"):
            yield _tested(folder, image)


def _is_category(path: Path) -> bool:
    return (path / "train" / "good").is_dir() and (
        (path / "test").is_dir() or (path / "ground_truth").is_dir()
    )


def _tested(folder: Path, image: Path) -> Example | Fault:
    defect = image.parent.name
    if defect == "good":
        return labelled(image, folder.name, "test", "good")
    mask = folder / "ground_truth" / defect / f"{image.stem}_mask.png"
    if not mask.is_file():
        return Fault(f"{mask}: the mask of {image} is not there; unpack the archive again")
    return labelled(image, folder.name, "test", "bad", cause=defect, mask=mask)
