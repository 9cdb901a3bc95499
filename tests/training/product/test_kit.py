"""A user's folder: read as it is, or refused in one line that names the fault and the remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lad_agent.errors import UsageError
from lad_agent.rationale import Count, Value
from lad_agent.training.product import kit as kits
from lad_agent.training.synloco.scene import BOARD, DAMAGE
from tests.training.product.drawn import (
    RECIPE,
    SIZE,
    fixture,
    plate,
    ring,
    save,
    write_boxes,
    write_kit,
)

Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_kit(tmp_path / "kit")


def test_a_kit_is_read(folder: Path) -> None:
    kit = kits.read(folder)
    assert kit.product == "spare_kit"
    assert kit.nouns == ("plates", "rings", DAMAGE)
    assert kit.values == {"lid": ("blue", "red", "none")}
    assert kit.forms == (
        Count("rings", 2), Count("plates", 1), Value("lid", "red"), Count(DAMAGE, 0)
    )  # fmt: skip
    assert [len(cuts) for cuts in kit.parts.values()] == [5, 5]
    assert [picture.shape for picture in kit.fixtures] == [(BOARD, BOARD, 3)] * 3
    assert kit.stretch == (BOARD / SIZE[0], BOARD / SIZE[1])
    assert [picture.shape for picture in kit.references] == [(196, 196, 3)]


def test_cut_outs_keep_their_size_and_are_premultiplied(folder: Path) -> None:
    cut = kits.read(folder).parts["plates"][0]
    extent = cut.outline.max(axis=0) - cut.outline.min(axis=0)
    np.testing.assert_allclose(extent, (39, 23), atol=1)
    assert cut.rgba[..., :3].max() <= 1
    assert (cut.rgba[..., :3] <= cut.rgba[..., 3:] + 1e-6).all()


def test_the_region_is_cut_from_fixtures(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE + "region: {left: 0.5, bottom: 0.5}\n")
    stretch = kits.read(folder).stretch
    assert stretch == (BOARD / (SIZE[0] / 2), BOARD / (SIZE[1] / 2))


def test_every_byte_counts(folder: Path) -> None:
    before = kits.read(folder).digest
    assert kits.read(folder).digest == before
    save(plate(1, (70, 90, 61)), folder / "parts/plates/0.png")
    assert kits.read(folder).digest != before


def test_what_a_cut_out_shows_counts(folder: Path) -> None:
    """The same pictures, the last one under another name."""
    before = kits.read(folder).digest
    rings = sorted((folder / "parts/rings").iterdir())
    save(ring(9), folder / "parts/plates/5.png")
    with_it = kits.read(folder).digest
    (folder / "parts/plates/5.png").rename(rings[0].with_name("!.png"))
    assert len({before, with_it, kits.read(folder).digest}) == 3


def test_boxes_are_cut_out(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE.replace("plate", "disc"))
    write_boxes(folder, "discs", 5)
    cuts = kits.read(folder).parts["discs"]
    assert len(cuts) == 5
    for cut in cuts:
        extent = cut.outline.max(axis=0) - cut.outline.min(axis=0)
        np.testing.assert_allclose(extent, (41, 41), atol=4)
        covered = cut.rgba[..., 3].mean()
        assert 0.65 < covered < 0.9  # a disc fills 0.785 of its box


def _recipe(old: str, new: str) -> Change:
    return lambda folder: (folder / "recipe.yaml").write_text(RECIPE.replace(old, new))


def _boxes(entry: object) -> Change:
    return lambda folder: (folder / "parts.json").write_text(json.dumps([entry]))


FAULTS: dict[str, tuple[Change, str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no recipe": (lambda f: (f / "recipe.yaml").unlink(), "recipe new"),
    "no cut-outs": (lambda f: shutil.rmtree(f / "parts"), "no cut-outs; put some ten"),
    "few cut-outs": (lambda f: (f / "parts/rings/0.png").unlink(), "rings: 4 cut-outs; 5 at least"),
    "opaque": (
        lambda f: save(Image.new("RGB", (30, 30)), f / "parts/rings/0.png"),
        "0.png: opaque, the part is not cut out",
    ),
    "empty": (
        lambda f: save(Image.new("RGBA", (30, 30)), f / "parts/rings/0.png"),
        "0.png: empty, all of it is transparent",
    ),
    "damaged": (lambda f: (f / "parts/rings/0.png").write_bytes(b"x"), "not a readable PNG"),
    "too large": (
        lambda f: save(plate(0, (0, 0, 0)).resize((500, 400)), f / "parts/rings/0.png"),
        "the inspected region 320 x 240",
    ),
    "capitals": (lambda f: (f / "parts/rings").rename(f / "parts/Rings"), "in small letters"),
    "stray": (lambda f: save(plate(0, (9, 9, 9)), f / "parts/lid/0.png"), "lid: 1 cut-outs"),
    "few fixtures": (lambda f: (f / "fixture/0.png").unlink(), "2 pictures of the empty fixture"),
    "two sizes": (
        lambda f: save(fixture(0).resize((300, 240)), f / "fixture/0.png"),
        "with one camera",
    ),
    "damaged fixture": (lambda f: (f / "fixture/0.png").write_bytes(b"x"), "fixture/0.png"),
    "no such part": (_recipe("2 rings", "2 screws"), "R1 .* put them into parts/screws"),
    "no such subject": (_recipe("lid is red", "cap is red"), "put them into parts/cap/<value>"),
    "no such value": (_recipe("lid is red", "lid is green"), "parts/lid/green .there are: blue"),
    "no form": (_recipe("2 rings", "two rings"), "R1 .* follows none of the forms"),
    "too many": (_recipe("2 rings", "20 rings"), "counts to 12"),
    "another size": (lambda f: (f / "recipe.yaml").write_text(RECIPE + "image_size: 224\n"), "224"),
    "box outside": (
        _boxes({"image": "reference.png", "part": "rings", "box": [300, 0, 340, 40]}),
        "box 0 .rings. does not lie in",
    ),
    "box of nothing": (
        _boxes({"image": "reference.png", "part": "rings"}), "0.box: field required",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used_is_refused_with_the_remedy(folder: Path, name: str) -> None:
    change, said = FAULTS[name]
    change(folder)
    with pytest.raises(UsageError, match=said) as caught:
        kits.read(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_all_pictures_that_cannot_be_used_are_named(folder: Path) -> None:
    for name in ("opaque", "too large"):
        FAULTS[name][0](folder)
    (folder / "parts/rings/1.png").write_bytes(b"x")
    FAULTS["box outside"][0](folder)
    with pytest.raises(UsageError) as caught:
        kits.read(folder)
    said = str(caught.value).split(" | ")
    assert [line.partition(":")[0].rpartition("/")[2] for line in said] == [
        "0.png", "1.png", "parts.json",
    ]  # fmt: skip
