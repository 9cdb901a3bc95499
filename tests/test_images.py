"""Every sort of image file: read right or refused in one line."""

import contextlib
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_agent import images, recipe
from lad_agent.errors import UnreadableInput
from lad_agent.judgement import Reason
from lad_agent.recipe import Region
from lad_agent.training import degradations, synloco
from tests.scripted import part, write_recipe

WHOLE = Region()


def _save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(UnreadableInput) as caught:
        images.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert ";" in message, "a remedy follows"
    return message


def test_a_picture_is_rgb_with_the_hash_of_its_bytes(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", part("a", 1))
    found = images.read(path)
    assert (found.image.mode, found.width, found.height) == ("RGB", 100, 100)
    assert found.sha256 == images.file_sha256(path)


def test_exif_is_obeyed(tmp_path: Path) -> None:
    picture = Image.new("RGB", (60, 40), "white")
    picture.paste("red", (0, 0, 60, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _save(tmp_path / "turned.jpg", picture, exif=exif, quality=95)
    found = images.read(path).image
    assert found.size == (40, 60)
    assert found.getpixel((38, 30))[0] > 200
    assert found.getpixel((38, 30))[1] < 60


def test_sixteen_bits_are_cut_to_eight(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for name in ("deep.png", "deep.tif"):
        found = images.read(_save(tmp_path / name, Image.fromarray(ramp))).image
        assert found.mode == "RGB"
        assert found.getpixel((0, 0)) == (0, 0, 0)
        assert found.getpixel((63, 63)) == (255, 255, 255)


def test_sixteen_bit_portable_graymap(tmp_path: Path) -> None:
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">HH", 0, 65535))
    found = images.read(path).image
    assert [found.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_cmyk_and_palette_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (20, 20), (250, 5, 5))
    cmyk = images.read(_save(tmp_path / "c.jpg", red.convert("CMYK"), quality=95)).image
    palette = images.read(_save(tmp_path / "p.png", red.convert("P"))).image
    for found in (cmyk, palette):
        pixel = found.getpixel((10, 10))
        assert found.mode == "RGB"
        assert pixel[0] > 200
        assert max(pixel[1:]) < 60


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    options = {"transparency": 0} if mode == "P" else {}
    path = _save(tmp_path / "t.png", picture.convert(mode), **options)
    wanted = 255 if mode in ("LA", "RGBA", "P") else 0
    assert images.read(path).image.getpixel((5, 5)) == (wanted, wanted, wanted)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_pictures_none_is_chosen(tmp_path: Path, name: str) -> None:
    frames = [part("frame", number) for number in range(3)]
    path = _save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    assert "3 pictures in one file" in _refused(path)


def test_a_still_gif_is_read(tmp_path: Path) -> None:
    assert images.read(_save(tmp_path / "still.gif", part("a", 1))).image.mode == "RGB"


def test_a_jpeg_with_a_preview_is_its_first_picture(tmp_path: Path) -> None:
    frames = [part("frame", number) for number in range(2)]
    path = _save(tmp_path / "phone.jpg", frames[0], format="MPO", save_all=True,
                 append_images=frames[1:])  # fmt: skip
    first = np.asarray(images.read(path).image, int)
    assert np.abs(first - np.asarray(frames[0], int)).mean() < 12


def test_floating_point_and_32_bits_are_refused(tmp_path: Path) -> None:
    floats = Image.fromarray(np.ones((4, 4), np.float32))
    assert "floating-point" in _refused(_save(tmp_path / "f.tif", floats))
    wide = Image.fromarray(np.full((4, 4), 1 << 20, np.int32))
    assert "32 bits" in _refused(_save(tmp_path / "i.tif", wide))


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.png", tmp_path / "text.png"
    empty.write_bytes(b"")
    text.write_text("no picture at all")
    assert "the file is empty" in _refused(empty)
    assert "not an image" in _refused(text)
    assert "no such file" in _refused(tmp_path / "gone.png")
    assert "not a file" in _refused(tmp_path)


def test_formats_that_start_other_programs_are_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    assert "not an image" in _refused(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".gif"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    whole = _save(tmp_path / f"whole{suffix}", part("a", 1)).read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[: int(len(whole) * share)])
        _refused(path)


def test_no_right_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "a.png", part("a", 1))

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "Permission denied" in _refused(path)


def _bomb(path: Path, side: int) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    assert "pixels" in _refused(_bomb(tmp_path / "bomb.png", side))


def test_the_pixel_limit_can_be_set(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", part("a", 1))
    with pytest.raises(UnreadableInput, match="the limit is 0"):
        images.read(path, max_pixels=9_999)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"]))
def test_damaged_bytes_are_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    rng = random.Random(seed)
    buffer = io.BytesIO()
    part("a", 1, size=32).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for _ in range(rng.randrange(1, 12)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(bytes(data))
    with contextlib.suppress(UnreadableInput):
        assert images.read(path).image.mode == "RGB"


def test_prepare_cuts_the_region_and_resizes(tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 100), "white")
    picture.paste("blue", (100, 0, 200, 100))
    right = images.prepare(picture, Region(left=0.5), 56)
    assert right.size == (56, 56)
    assert np.asarray(right).reshape(-1, 3).tolist() == [[0, 0, 255]] * 56 * 56
    assert images.prepare(right, WHOLE, 56) is right


def test_references_are_prepared_and_must_not_change(tmp_path: Path) -> None:
    loaded = recipe.load(write_recipe(tmp_path))
    [reference] = images.references(loaded)
    assert reference.size == (loaded.image_size, loaded.image_size)
    part("another", 9).save(tmp_path / "reference.png")
    with pytest.raises(UnreadableInput, match="has changed"):
        images.references(loaded)


def _gated(image: Image.Image, region: Region, size: int) -> Reason | None:
    picture = images.prepare(image, region, size)
    return images.gate(picture, images.shorter_side(image, region))


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _wall(level: float, noise: float, size: int = 392) -> np.ndarray:
    rng = np.random.default_rng(5)
    slope = np.linspace(-25, 25, size)[None, :, None]
    return level + slope + rng.normal(0, noise, (size, size, 3))


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (_picture(np.full((300, 300, 3), 4.0)), Reason.TOO_DARK),
        (_picture(np.full((300, 300, 3), 252.0)), Reason.TOO_BRIGHT),
        (_picture(_wall(150, 0)), Reason.BLURRED),
        (_picture(_wall(150, 10)), Reason.BLURRED),
        (_picture(np.random.default_rng(1).uniform(0, 255, (196, 196, 3))), Reason.NOISE),
        (_picture(np.random.default_rng(1).normal(128, 60, (392, 392, 3))), Reason.NOISE),
        (part("a", 1, size=60), Reason.TOO_SMALL),
        (part("a", 1), None),
        (part("a", 1, size=900), None),
    ],
)
def test_the_gate(picture: Image.Image, reason: Reason | None) -> None:
    assert _gated(picture, WHOLE, 196) is reason


@pytest.mark.parametrize("name", degradations.DEGRADATIONS)
def test_there_is_headroom_where_the_gate_lets_a_picture_pass_and_none_elsewhere(name: str) -> None:
    sharp = Image.fromarray(synloco.sample("pushpins", 11, 0, "train", 196, "normal").photo.image)
    for strength in (0.0, 0.1, 0.2, 0.4, 0.7, 1.0):
        spoiled = degradations.degraded(sharp, name, strength)
        left = images.headroom(spoiled)
        assert 0.0 <= left <= 1.0
        assert (left > 0.0) == (images.gate(spoiled, 196) is None)


@pytest.mark.parametrize("product", recipe.SHIPPED)
@pytest.mark.parametrize("contrast", [0.5, 1.0, 1.6])
def test_noise_is_measured_and_gated_whatever_the_contrast(product: str, contrast: float) -> None:
    clean = np.asarray(synloco.sample(product, 11, 1, "train", 196, "normal").photo.image)
    scene = np.clip(128 + contrast * (clean.astype(float) - clean.mean()), 0, 255)
    drawn = np.random.default_rng(3).normal(0, 1, scene.shape[:2])[..., None]
    for spread, reason in ((8.0, None), (40.0, Reason.NOISE)):
        noisy = _picture(scene + spread * drawn)
        assert images.measure(noisy).noise == pytest.approx(spread, rel=0.35)
        assert images.gate(noisy, 196) is reason


def test_the_gate_looks_at_the_region_alone() -> None:
    picture = Image.new("RGB", (400, 400), (120, 120, 120))
    picture.paste(part("a", 1, size=200), (200, 200))
    assert _gated(picture, Region(right=0.4, bottom=0.4), 100) is Reason.BLURRED
    assert _gated(picture, Region(left=0.5, top=0.5), 100) is None


@pytest.mark.parametrize("product", recipe.SHIPPED)
def test_the_gate_lets_every_synthetic_picture_pass(product: str) -> None:
    for index in range(40):
        split, kind = ("train", "held-out")[index % 2], ("normal", "varied")[index // 2 % 2]
        sample = synloco.sample(product, 11, index, split, 196, kind)
        picture = Image.fromarray(sample.photo.image)
        assert _gated(picture, WHOLE, 196) is None
