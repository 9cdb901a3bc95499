"""Settings: `lad-agent.toml` in the current folder, overruled by `LAD_AGENT_*`, then by flags."""

import getpass
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from lad_agent import nearest
from lad_agent.errors import UsageError

FILE = "lad-agent.toml"
PREFIX = "LAD_AGENT_"

_Name = Annotated[str, StringConstraints(strip_whitespace=True)]


class Settings(BaseSettings):
    """Every setting, with its default.

    `store` is a path or a SQLAlchemy URL. `reasoner` is `pocket` (the embedded model), a model
    folder, or `http://host:port/v1#model` for a server. `by` stands in the audit trail.

    With a `signing_key` (a file of `lad-agent audit keygen`) the ledger's head is signed after so
    many events or minutes, and appended to `heads_file`, which should lie out of reach of the
    database's users.

    With a `webhook_url` every result and decision is posted there, signed with `webhook_secret`; a
    message that is refused `outbox_tries` times is given up, by default none ever (see
    docs/results-out.md).

    The rest is for the service: the folder of its `recipes` (those shipped), the `image_roots`
    below which a request may name a file (none), how many parts it accepts before it asks callers
    to wait (`queue`), how long a session and a claim last, and whether every decision asks for the
    password again.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, toml_file=FILE, extra="forbid", frozen=True, env_ignore_empty=True
    )

    store: str = "lad-agent.db"
    reasoner: str = "pocket"
    adapter: Path | None = None
    device: str = "auto"
    station: _Name = Field(default_factory=socket.gethostname, min_length=1, max_length=100)
    by: _Name = Field(default_factory=lambda: _user(), min_length=1, max_length=200)
    in_flight: int = Field(default=64, ge=1, le=4096)
    max_batch: int = Field(default=32, ge=1, le=1024)
    max_pixels: int = Field(default=64_000_000, ge=10_000)
    signing_key: Path | None = None
    heads_file: Path | None = None
    head_every_events: int = Field(default=1000, ge=1)
    head_every_minutes: float = Field(default=60.0, gt=0)
    webhook_url: str | None = None
    webhook_secret: SecretStr | None = None
    outbox_tries: int | None = Field(default=None, ge=1)
    recipes: Path | None = None
    image_roots: tuple[Path, ...] = ()
    queue: int = Field(default=256, ge=1, le=100_000)
    max_upload_mb: float = Field(default=32.0, gt=0, le=1000)
    session_minutes: float = Field(default=480.0, gt=0, le=10_000)
    lease_minutes: float = Field(default=10.0, gt=0, le=1440)
    sign_with_password: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(**flags: Any) -> Settings:
    """The settings in force; flags that are None were not given.

    Raises:
        UsageError: the file is no TOML, or a setting is unknown or wrong; names it.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{FILE}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise UsageError(_explain(error.errors()[0], flags)) from error


def _explain(detail: Any, flags: dict[str, Any]) -> str:
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        hint = nearest.hint(name, Settings.model_fields)
        return f"{FILE}: unknown setting {name!r}; {hint}"
    where = f"--{name.replace('_', '-')}" if flags.get(name) is not None else f"setting {name}"
    said = detail["msg"][:1].lower() + detail["msg"][1:]
    return f"{where}: {said} (found {detail['input']!r})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
