"""`lad-agent users`, and `lad-agent serve` where it must not start."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from lad_agent.store import access, open_store
from tests.cli.conftest import Cli, Ran
from tests.scripted import Scripted, write_recipe

Add = Callable[..., Ran]


@pytest.fixture
def add(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Add a user; the password comes by standard input."""

    def run(name: str, role: str = "reviewer", password: str = "correct horse") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
        return cli("users", "add", name, "--role", role, "--password-stdin", "--by", "root")

    return run


def test_users_are_added_changed_and_removed(cli: Cli, add: Add, tmp_path: Path) -> None:
    assert add("anna").code == 0
    add("bert", "admin")
    assert "is there already" in add("anna").error
    assert cli("users", "role", "anna", "--role", "viewer").code == 0
    assert cli("users", "remove", "bert").code == 0
    found = {
        one["name"]: (one["role"], one["active"]) for one in cli("users", "list", "--json").json
    }
    assert found == {"anna": ("viewer", True), "bert": ("admin", False)}
    assert "password" not in cli("users", "list", "--json").out
    assert cli("users", "list").out.splitlines()[1].split()[:3] == ["anna", "viewer", "yes"]
    for call in (("role", "bert", "--role", "viewer"), ("remove", "bert"), ("remove", "eve")):
        assert "no user" in cli("users", *call).error
    with open_store(tmp_path / "lad-agent.db") as store:
        assert store.ask(lambda session: access.user(session, "bert")).password is None  # type: ignore[union-attr]
        assert store.verify_chain().intact


def test_no_secret_is_kept(cli: Cli, add: Add, tmp_path: Path) -> None:
    add("anna", password="correct horse")
    secret = cli("users", "token", "anna", "--scope", "read", "--scope", "inspect").out.strip()
    assert secret.startswith("lad_")
    written = b"".join(path.read_bytes() for path in tmp_path.glob("lad-agent.db*"))
    assert secret.encode() not in written
    assert b"correct horse" not in written
    assert b"$argon2id$" in written
    (token,) = cli("users", "tokens", "--json").json
    assert (token["name"], token["scopes"]) == ("anna", ["inspect", "read"])
    assert cli("users", "tokens").out.splitlines()[1].split()[-1] == "yes"
    cli("users", "revoke", token["id"])
    assert cli("users", "tokens").out.splitlines()[1].split()[-1] == "no"
    assert cli("users", "revoke", "none").code == 2


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("add", "eve", "--role", "king", "--password-stdin"), "known: viewer, reviewer, admin"),
        (("add", " ", "--password-stdin"), "1 to 200 characters"),
        (("token", "eve", "--scope", "read"), "no user 'eve'"),
        (("token", "eve", "--scope", "all"), "known: read, inspect, review, admin"),
    ],
)
def test_what_is_wrong_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, call: tuple[str, ...], told: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    assert told in cli("users", *call).error


def test_a_short_password_is_refused(add: Add) -> None:
    assert "10 to 200 characters" in add("anna", password="short").error


def test_a_service_that_must_not_start_says_why(
    cli: Cli, tmp_path: Path, reasoner: Scripted
) -> None:
    assert "lad-agent users add" in cli("serve", "--host", "0.0.0.0", "--port", 0).error
    assert "cannot listen there" in cli("serve", "--host", "192.0.2.1").error
    (tmp_path / "none").mkdir()
    assert "no recipes in it" in cli("serve", "--port", 0, "--recipes", "none").error
    write_recipe(tmp_path / "twice" / "a")
    write_recipe(tmp_path / "twice" / "b")
    assert "keep one of them" in cli("serve", "--port", 0, "--recipes", "twice").error
    assert "belong together" in cli("serve", "--tls-key", "key.pem").error
    assert "no such file" in cli("serve", "--tls-key", "k.pem", "--tls-cert", "c.pem").error
