"""The pictures that the pages show, found by inspection: never by a path that a browser names."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lad_agent import images, recipe
from lad_agent.errors import NotFound, RecipeError, UnreadableInput
from lad_agent.inspection import Intake
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
    kept = [store.images / review.kept for review in history.reviews if review.kept]
    for path in (*kept, Path(intake.image)):
        content = _content(path)
        if content is not None and hashlib.sha256(content).hexdigest() == intake.image_sha256:
            return _shown(path, content, intake.image_sha256)
    raise NotFound(f"the image of {intake.part_id} is gone, or another one lies in its place")


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
    for path in _reference_files(intake):
        content = _content(path)
        if content is not None and hashlib.sha256(content).hexdigest() == wanted[number]:
            return _shown(path, content, wanted[number])
    raise NotFound(f"the reference of {intake.product} has changed since this part was judged")


def _reference_files(intake: Intake) -> tuple[Path, ...]:
    try:
        return recipe.load(Path(intake.recipe_path)).references
    except (RecipeError, OSError, ValueError):
        return ()


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
