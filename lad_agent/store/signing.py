"""Ed25519 keys in files, and what is signed with them.

The private half lies in a file that its owner alone may read (PKCS #8, PEM); the public half lies
beside it as `<file>.pub` and may be given to anyone who wants to check a signature.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from lad_agent.errors import PrerequisiteError, UsageError


@dataclass(frozen=True)
class SigningKey:
    """A private key, told apart by its public half."""

    private: Ed25519PrivateKey = field(repr=False, compare=False)
    public: str = field(init=False)
    """32 bytes as 64 hex digits."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", self.private.public_key().public_bytes_raw().hex())

    def sign(self, content: bytes) -> str:
        """The signature of `content`: 64 bytes as 128 hex digits."""
        return self.private.sign(content).hex()


def is_signed(content: bytes, signature: str, public: str) -> bool:
    """Whether `signature` is that of `content` by the key whose public half is `public`."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def generate(file: Path) -> SigningKey:
    """Make a key, write its halves to `file` (mode 0600) and `<file>.pub`.

    Raises:
        UsageError: one of the files is there already; a key is never overwritten.
        PrerequisiteError: they cannot be written.
    """
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    beside = public_file(file)
    if beside.exists():
        raise UsageError(f"{beside}: is there already; give another name, or move it away first")
    try:
        _write_new(file, secret, 0o600)
        try:
            _write_new(beside, public, 0o644)
        except OSError:
            file.unlink()  # half a key would be in the way of the next try
            raise
    except FileExistsError as error:
        raise UsageError(
            f"{file}: is there already, and a key is never overwritten; give another name"
        ) from error
    except OSError as error:
        raise PrerequisiteError(f"{file}: cannot be written ({error.strerror})") from error
    return SigningKey(private)


def load_key(file: Path) -> SigningKey:
    """The private key in `file`.

    Raises:
        PrerequisiteError: it is not there, is another user's, others may read it, or it is no
            Ed25519 key; says which and the remedy.
    """
    try:
        with file.open("rb") as opened:
            _check_rights(file, os.fstat(opened.fileno()))
            content = opened.read()
    except FileNotFoundError as error:
        raise PrerequisiteError(
            f"{file}: no signing key here; make one with: lad-agent audit keygen {file}"
        ) from error
    except OSError as error:
        raise PrerequisiteError(
            f"{file}: the signing key cannot be read ({error.strerror}); "
            "run as the user who owns it"
        ) from error
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise PrerequisiteError(
            f"{file}: not a signing key; give the file that audit keygen made"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise PrerequisiteError(f"{file}: not an Ed25519 key; make one with audit keygen")
    return SigningKey(private)


def public_file(file: Path) -> Path:
    """Where the public half of the key in `file` lies."""
    return file.with_name(file.name + ".pub")


def load_public(file: Path) -> str:
    """The public half in a `.pub` file, as 64 hex digits.

    Raises:
        PrerequisiteError: it is not there, or is no public Ed25519 key.
    """
    try:
        public = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise PrerequisiteError(f"{file}: no public key here ({error.strerror})") from error
    except ValueError as error:
        raise PrerequisiteError(
            f"{file}: not a public key; give the .pub file that audit keygen made"
        ) from error
    if not isinstance(public, Ed25519PublicKey):
        raise PrerequisiteError(f"{file}: not an Ed25519 key; make one with audit keygen")
    return public.public_bytes_raw().hex()


def _check_rights(file: Path, found: os.stat_result) -> None:
    if os.name != "posix":
        return
    if found.st_uid != os.geteuid():
        raise PrerequisiteError(
            f"{file}: the signing key belongs to another user; run as its owner, "
            "or make one of your own with audit keygen"
        )
    if mode := stat.S_IMODE(found.st_mode) & 0o077:
        raise PrerequisiteError(
            f"{file}: others have rights on the signing key (0{mode:o}); chmod 600 {file}"
        )


def _write_new(file: Path, content: bytes, mode: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError:
        file.unlink()
        raise
