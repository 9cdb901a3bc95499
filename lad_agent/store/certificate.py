"""The certificate of one part: an HTML file that holds its images and vouches for itself.

It loads nothing and runs nothing. The last line is a comment with the public key and an Ed25519
signature over every byte before that line.
"""

import base64
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from lad_agent import images
from lad_agent.errors import CheckFailed, UnreadableInput, UsageError
from lad_agent.results import printable
from lad_agent.store.queries import History, Review
from lad_agent.store.signing import SigningKey, is_signed

SIDE = 1000
"""Most pixels of an embedded image's side."""

_LAST_LINE = re.compile(rb"<!-- lad-agent certificate ed25519 ([0-9a-f]{64}) ([0-9a-f]{128}) -->\n")


@dataclass(frozen=True)
class Picture:
    """An image as the certificate shows it: PNG in base64, or None and a note that says why."""

    title: str
    sha256: str | None
    data: str | None
    note: str


def render(history: History, kept: Path, key: SigningKey) -> bytes:
    """The signed certificate of an inspection; `kept` is the store's folder of images.

    An image is embedded, no larger than `SIDE`, where its bytes are still those that were judged.

    Raises:
        UsageError: the inspection is still open, so there is nothing to certify.
    """
    outcome, intake = history.inspected.outcome, history.inspected.intake
    if outcome is None:
        raise UsageError(f"inspection {history.inspected.id} is not finished; run inspect again")
    content = _template().render(
        id=outcome.id,
        part_id=_plain(intake.part_id),
        final=_final(history),
        facts=_shown(_facts(history)),
        pictures=[_query_picture(history, kept), *_references(history)],
        rules=_shown(
            (rule["id"], rule["text"]) for rule in (history.recipe or {}).get("rules", [])
        ),
        judgement=_shown(_said(history)),
        reviews=[
            {"title": f"Review ({review.kind})", "facts": _shown(_decided(review))}
            for review in history.reviews
        ],
        events=[
            {"seq": event.seq, "at": event.at, "type": event.type, "actor": _plain(event.actor)}
            for event in history.events
        ],
        key=key.public,
    )
    signed = (content.rstrip("\n") + "\n").encode()
    line = f"<!-- lad-agent certificate ed25519 {key.public} {key.sign(signed)} -->\n"
    return signed + line.encode()


def check(content: bytes, public: str | None = None) -> str:
    """The public key that signed a certificate; `public` is the one it must be.

    Raises:
        CheckFailed: no certificate, changed since it was signed, or signed by another key.
    """
    head, newline, last = content.rstrip(b"\n").rpartition(b"\n")
    found = _LAST_LINE.fullmatch(last + b"\n")
    if found is None or content != head + newline + last + b"\n":
        raise CheckFailed("not a certificate, or its last line was changed")
    by, signature = found[1].decode(), found[2].decode()
    if not is_signed(head + newline, signature, by):
        raise CheckFailed("changed since it was signed")
    if public is not None and by != public:
        raise CheckFailed(f"signed by another key: {by}")
    return by


def _final(history: History) -> str:
    outcome = history.inspected.outcome
    if outcome is None or outcome.final is None:
        return "NotDecidable, waiting for a person"
    return outcome.final.value


def _facts(history: History) -> list[tuple[str, object]]:
    one, intake = history.inspected, history.inspected.intake
    outcome = one.outcome
    return [
        ("inspection", one.id),
        ("product", intake.product),
        ("station", intake.station),
        ("lot", intake.lot),
        ("attempt", intake.attempt),
        ("result", outcome.result.value if outcome else None),
        ("reason", outcome.reason.value if outcome and outcome.reason else None),
        ("detail", one.detail),
        ("taken in", one.opened_at),
        ("recorded", one.recorded_at),
        ("closed", one.closed_at),
        ("by", intake.actor),
        ("recipe version", intake.recipe_version),
        ("task version", intake.task_version),
        ("model", intake.model),
        ("image file", intake.image),
    ]


def _said(history: History) -> list[tuple[str, object]]:
    said = history.judgement
    if said is None:
        return []
    verdict = {True: "anomalous", False: "good", None: "not well-formed"}[said.anomalous]
    return [
        ("verdict", verdict),
        ("rationale", said.rationale or said.raw_text),
        ("rule", said.rule),
        ("places", ", ".join(said.places)),
        ("anomaly score", said.anomaly_score),
        ("confidence", said.confidence),
        ("rationales drawn more", said.samples),
        ("agreement", said.agreement),
        ("evidence", said.evidence),
        ("", said.evidence_detail),
    ]


def _decided(review: Review) -> list[tuple[str, object]]:
    decision = review.decision
    if decision is None:
        return [("opened", review.opened_at), ("decided", "not yet")]
    return [
        ("opened", review.opened_at),
        ("decided", review.decided_at),
        ("by", decision.by),
        ("finding", decision.finding.value),
        ("disposition", decision.disposition.value if decision.disposition else None),
        ("rule", decision.rule),
        ("comment", decision.comment),
    ]


def _query_picture(history: History, kept: Path) -> Picture:
    sha256 = history.inspected.intake.image_sha256
    return _picture("the part", history.image_files(kept), sha256)


def _references(history: History) -> list[Picture]:
    hashes = (history.recipe or {}).get("references", [])
    places = images.find_references(Path(history.inspected.intake.recipe_path), hashes)
    return [
        _picture(f"reference {number}", [place] if place else [], sha256)
        for number, (place, sha256) in enumerate(zip(places, hashes, strict=True), 1)
    ]


def _picture(title: str, places: Iterable[Path], sha256: str | None) -> Picture:
    found = images.find(places, sha256)
    if found is None:
        return Picture(title, sha256, None, f"no file with SHA-256 {sha256} is left")
    try:
        picture = images.read(found).image
    except UnreadableInput:
        return Picture(title, sha256, None, "the file cannot be shown as a picture")
    note = ""
    if max(picture.size) > SIDE:
        note = f"made smaller from {picture.width} x {picture.height}"
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    png = io.BytesIO()
    picture.save(png, "PNG")
    return Picture(title, sha256, base64.b64encode(png.getvalue()).decode(), note)


def _shown(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(name, _plain(str(value))) for name, value in pairs if value not in (None, "")]


def _plain(text: str) -> str:
    """One line, with nothing in it that turns the text's order round or that no file can hold."""
    return printable(" ".join(text.split()))


@cache
def _template() -> Template:
    text = Path(__file__).with_name("certificate.html").read_text(encoding="utf-8")
    room = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return room.from_string(text)
