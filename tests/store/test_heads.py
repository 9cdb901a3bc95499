"""Keys, signed heads by schedule and on demand, and their copies out of the database."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from lad_agent.errors import PrerequisiteError, UsageError
from lad_agent.store import AuditStore, Signing, open_store
from lad_agent.store.heads import read_file
from lad_agent.store.signing import SigningKey, generate, is_signed, load_key, load_public
from tests.store.samples import OK, intake, judgement, tables
from tests.store.test_bad_stores import NOBODY

KEY = SigningKey(Ed25519PrivateKey.generate())
posix = pytest.mark.skipif(os.name != "posix", reason="rights are other on Windows")


def test_a_key_is_two_files_and_only_one_is_secret(tmp_path: Path) -> None:
    key = generate(tmp_path / "line.key")
    assert (tmp_path / "line.key").stat().st_mode & 0o777 == 0o600
    assert load_key(tmp_path / "line.key") == key
    assert load_public(tmp_path / "line.key.pub") == key.public
    assert "private" not in repr(key).lower()
    with pytest.raises(UsageError, match="is there already"):
        generate(tmp_path / "line.key")
    assert load_key(tmp_path / "line.key") == key


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_fits_one_content_and_one_key(content: bytes, other: bytes) -> None:
    signature = KEY.sign(content)
    assert is_signed(content, signature, KEY.public)
    assert is_signed(other, signature, KEY.public) == (other == content)
    assert not is_signed(content, signature, "00" * 32)
    assert not is_signed(content, "no hex", KEY.public)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"make one with: lad-agent audit keygen"):
        load_key(tmp_path / "none.key")


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    generate(tmp_path / "line.key")
    (tmp_path / "line.key").chmod(mode)
    with pytest.raises(PrerequisiteError, match=r"others have rights.*chmod 600"):
        load_key(tmp_path / "line.key")


@posix
def test_a_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(tmp_path / "line.key")
    if os.geteuid() == 0:
        os.chown(tmp_path / "line.key", NOBODY, NOBODY)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with pytest.raises(PrerequisiteError, match="belongs to another user"):
        load_key(tmp_path / "line.key")


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "line.key"
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, says in ((b"secret", "not a signing key"), (pem, "not an Ed25519 key")):
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(PrerequisiteError, match=says):
            load_key(file)
        with pytest.raises(PrerequisiteError, match="not a public key"):
            load_public(file)


def test_heads_are_signed_after_so_many_events(store_url: str, tmp_path: Path) -> None:
    signing = Signing(KEY, "line-1", "olga", every_events=10, export_to=tmp_path / "out" / "heads")
    with open_store(store_url, signing=signing) as store:
        for number in range(12):
            opened = store.take_in(intake(f"p{number}", station=f"line-{number % 2}"))
            store.record(opened.id, OK, judgement())
        heads = read_file(tmp_path / "out" / "heads")
        report = store.verify_chain(exported=heads)
    assert report.intact
    assert len(heads) == report.heads == 4
    assert all(head.valid for head in heads)
    assert report.unsigned < 10


def test_heads_are_signed_after_so_much_time(
    store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hourly = Signing(KEY, "line-1", "olga", every_minutes=60)
    with open_store(store.file, signing=hourly) as signed:
        signed.take_in(intake("p1"))
        first = _signed_at(signed)
        signed.take_in(intake("p2"))
        assert _signed_at(signed) == first
    with open_store(store.file, signing=replace(hourly, every_minutes=1e-9)) as signed:
        signed.take_in(intake("p3"))
        assert _signed_at(signed) != first
        monkeypatch.setattr("lad_agent.store.ledger.now", lambda: "2999-01-01T00:00:00.000000Z")
        signed.take_in(intake("p4"))
        monkeypatch.undo()
    with open_store(store.file, signing=hourly) as signed:
        signed.take_in(intake("p5"))  # the clock was set back: better once too often
        assert _signed_at(signed) < "2999"


def test_only_what_is_lacking_is_exported(
    store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    file = tmp_path / "heads.jsonl"
    for number in range(3):
        store.take_in(intake(f"p{number}"))
        store.sign_head(signing)
        assert store.export_heads(file) == 1
    assert store.export_heads(file) == 0
    whole = file.read_text()
    file.write_text(whole[:-7])  # cut off by a crash
    assert len(read_file(file)) == 2
    assert store.export_heads(file) == 1
    assert file.read_text() == whole


def test_a_file_of_something_else_is_left_alone(
    store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    store.take_in(intake())
    store.sign_head(signing)
    notes = tmp_path / "notes.txt"
    notes.write_text("milk\neggs\n")
    with pytest.raises(UsageError, match="not a file of exported heads"):
        store.export_heads(notes)
    with open_store(tmp_path / "other.db") as other:
        other.take_in(intake())
        other.sign_head(signing)
        other.export_heads(tmp_path / "heads")
    with pytest.raises(UsageError, match="heads of another ledger"):
        store.export_heads(tmp_path / "heads")
    assert notes.read_text() == "milk\neggs\n"


def test_recording_goes_on_where_heads_cannot_be_exported(
    store: AuditStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = Signing(KEY, "line-1", "olga", every_events=1, export_to=tmp_path / "audit.db" / "x")
    with open_store(store.file, signing=away) as signed:
        signed.take_in(intake())
        assert signed.count() == 1
        assert tables(signed)["heads"]
    assert "cannot be exported" in caplog.text


def test_a_head_can_be_checked_with_standard_tools(
    store: AuditStore, signing: Signing, tmp_path: Path
) -> None:
    store.take_in(intake())
    store.sign_head(signing)
    store.export_heads(tmp_path / "heads")
    line = json.loads((tmp_path / "heads").read_text())
    content = json.dumps(line["head"], sort_keys=True, separators=(",", ":")).encode()
    assert is_signed(content, line["signature"], load_public(tmp_path / "line.key.pub"))


def _signed_at(store: AuditStore) -> str:
    """When the last head was signed."""
    _, _, at, _ = max(tables(store)["heads"])
    return str(at)
