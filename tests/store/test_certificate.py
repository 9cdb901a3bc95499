"""The certificate: it shows what is recorded, holds its images, and vouches for every byte."""

import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_agent.errors import CheckFailed, UsageError
from lad_agent.recipe import load
from lad_agent.store import AuditStore, certificate, open_store, signing
from lad_agent.store.signing import SigningKey
from tests.scripted import write_parts, write_recipe
from tests.store.populated import populate, rejects, scrap
from tests.store.samples import DOUBT, HOSTILE, intake


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificate")


@pytest.fixture(scope="module")
def key(folder: Path) -> SigningKey:
    return signing.generate(folder / "key.pem")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[AuditStore]:
    with open_store(folder / "audit.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def escalated(store: AuditStore, folder: Path) -> str:
    """A part with its picture and recipe, escalated and decided; the picture has gone since."""
    recipe = load(write_recipe(folder / "tray"))
    [picture] = write_parts(folder / "tray", 1)
    opened = store.take_in(
        intake(
            "part-000",
            image=str(picture),
            image_sha256=hashlib.sha256(picture.read_bytes()).hexdigest(),
            recipe_path=str(recipe.path),
            recipe_version=recipe.recipe_version,
            task_version=recipe.task_version,
        )
    )
    review_id = store.escalate(opened.id, DOUBT, rejects())
    store.decide_review(review_id, scrap("R1"))
    picture.unlink()
    return opened.id


@pytest.fixture(scope="module")
def made(store: AuditStore, escalated: str, key: SigningKey) -> bytes:
    return certificate.render(store.history(escalated), store.images, key)


def test_it_tells_what_is_recorded(made: bytes, escalated: str, key: SigningKey) -> None:
    text = made.decode()
    for told in (
        escalated, "part-000: NotOK", "exactly 2 washers", "R1 washers at B2: 1 of 2 bad",
        "low-confidence", "nonconforming", "scrap", "bert", "inspection.recorded", key.public,
    ):  # fmt: skip
        assert told in text


def test_it_holds_the_images_and_loads_nothing(made: bytes) -> None:
    parsed = _Parsed(made.decode())
    pictures = [dict(attributes)["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert len(pictures) == 2  # the part's kept copy, and the reference
    assert all(source.startswith("data:image/png;base64,") for source in pictures if source)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "a"}
    assert "http" not in re.sub(r"base64,[^\"]*", "", made.decode()).replace("http-equiv", "")


def test_the_same_history_and_key_make_the_same_bytes(
    made: bytes, store: AuditStore, escalated: str, key: SigningKey
) -> None:
    assert certificate.render(store.history(escalated), store.images, key) == made


def test_whoever_has_the_public_key_can_check_it(made: bytes, key: SigningKey) -> None:
    assert certificate.check(made) == key.public
    assert certificate.check(made, key.public) == key.public
    head, _, last = made.rstrip(b"\n").rpartition(b"\n")
    signature = last.split()[5].decode()
    assert signing.is_signed(head + b"\n", signature, key.public)
    with pytest.raises(CheckFailed, match="signed by another key"):
        certificate.check(made, "0" * 64)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(made: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(made) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != made[at]))
    kind = data.draw(st.sampled_from(["change", "cut", "insert", "append"]))
    match kind:
        case "change":
            content = made[:at] + bytes([other]) + made[at + 1 :]
        case "cut":
            content = made[:at] + made[at + 1 :]
        case "insert":
            content = made[:at] + bytes([other]) + made[at:]
        case _:
            content = made + bytes([other])
    with pytest.raises(CheckFailed):
        # A changed key signs nothing; the one that must have signed is known.
        certificate.check(content, certificate.check(made))


def test_what_is_no_certificate_is_refused() -> None:
    for content in (b"", b"\n", b"<html></html>\n", b"<!-- lad-agent certificate ed25519 -->\n"):
        with pytest.raises(CheckFailed):
            certificate.check(content)


def test_hostile_texts_stay_texts(store: AuditStore, key: SigningKey) -> None:
    ids = populate(store)
    text = certificate.render(store.history(ids["hostile"]), store.images, key).decode()
    parsed = _Parsed(text)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "'; DROP TABLE events; --\\x00" in parsed.text
    assert "<script>" in parsed.text  # as words, not as a tag
    assert "\u202e" not in text
    assert parsed.text.count("no file with SHA-256") == 1


def test_an_inspection_that_is_still_open_is_refused(store: AuditStore, key: SigningKey) -> None:
    opened = store.take_in(intake("open"))
    with pytest.raises(UsageError, match="not finished"):
        certificate.render(store.history(opened.id), store.images, key)
    waiting = store.take_in(intake(HOSTILE + "2"))
    store.escalate(waiting.id, DOUBT, None)
    text = certificate.render(store.history(waiting.id), store.images, key).decode()
    assert "NotDecidable, waiting for a person" in text
    assert "It was not asked" in text


class _Parsed(HTMLParser):
    """The tags with their attributes, and the text, as a browser sees them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data
