"""The pictures that the pages show, found by inspection: never by a path that a browser names."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lad_agent import images
from lad_agent.errors import NotFound, UnreadableInput
from lad_agent.store import AuditStore, History

_AS_THEY_ARE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_TURNED = range(5, 9)
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """Bytes that a browser can show, and what they are."""

    content: bytes
    media_type: str
    sha256: str


def inspected(store: AuditStore, history: History) -> Picture:
    """The picture that was judged, from the store's copy or else from where it lay.

    Raises:
        NotFound: it is gone, or not any more what was judged.
        UnreadableInput: it is no picture.
    """
    intake = history.inspected.intake
    found = _first(history.image_files(store.images), intake.image_sha256)
    if found is None:
        raise NotFound(f"the image of {intake.part_id} is gone, or another one lies in its place")
    return found


def size(store: AuditStore, history: History) -> tuple[int, int] | None:
    """Width and height in pixels of the upright picture; None where there is none to show."""
    try:
        picture = inspected(store, history)
    except (NotFound, UnreadableInput):
        return None
    with Image.open(io.BytesIO(picture.content)) as opened:
        turned = opened.getexif().get(_ORIENTATION) in _TURNED
        return (opened.height, opened.width) if turned else opened.size


def reference(history: History, number: int) -> Picture:
    """The recipe's reference picture of that 0-based number, as it was judged against.

    Raises:
        NotFound: the recipe is not known or has no such reference, or the file has changed.
        UnreadableInput: it is no picture.
    """
    intake = history.inspected.intake
    wanted = (history.recipe or {}).get("references", [])
    if not 0 <= number < len(wanted):
        raise NotFound(f"the recipe of {intake.product} has no reference {number}")
    found = _first(images.reference_files(Path(intake.recipe_path)), wanted[number])
    if found is None:
        raise NotFound(f"the reference of {intake.product} has changed since this part was judged")
    return found


def _first(files: Iterable[Path], sha256: str | None) -> Picture | None:
    """The first of `files` that still holds the bytes of that SHA-256."""
    for path in files:
        content = _content(path)
        if content is not None and hashlib.sha256(content).hexdigest() == sha256:
            return _shown(path, content, sha256)
    return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= images.MAX_BYTES else None
    except (OSError, ValueError):
        return None


def _shown(path: Path, content: bytes, sha256: str) -> Picture:
    """Browsers show three formats, and turn them upright themselves; the others become PNG."""
    try:
        with Image.open(io.BytesIO(content), formats=images.FORMATS) as opened:
            media_type = _AS_THEY_ARE.get(opened.format or "")
    except Exception:
        # Pillow raises anything at all on damaged bytes; reading it whole says what is wrong.
        media_type = None
    if media_type is not None:
        return Picture(content, media_type, sha256)
    file = io.BytesIO()
    images.read(path).image.save(file, "PNG")
    return Picture(file.getvalue(), "image/png", sha256)
