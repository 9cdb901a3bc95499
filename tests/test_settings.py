"""Settings: the file, overruled by the environment, overruled by flags."""

from pathlib import Path

import pytest

from lad_agent.errors import UsageError
from lad_agent.settings import Settings, load


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_need_no_file() -> None:
    chosen = load()
    assert (chosen.store, chosen.reasoner, chosen.device) == ("lad-agent.db", "pocket", "auto")
    assert chosen.station
    assert chosen.by


def test_file_then_environment_then_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lad-agent.toml").write_text(
        'store = "file.db"\nstation = "file"\nby = "file"\nin_flight = 3\n'
    )
    monkeypatch.setenv("LAD_AGENT_STATION", "environment")
    monkeypatch.setenv("LAD_AGENT_BY", "environment")
    chosen = load(by="flag", store=None)
    assert (chosen.store, chosen.station, chosen.by) == ("file.db", "environment", "flag")
    assert chosen.in_flight == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('stor = "a"\n', "unknown setting 'stor'; did you mean 'store'"),
        ("in_flight = 0\n", "in_flight: "),
        ('in_flight = "many"\n', "in_flight: "),
        ("store = \n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "lad-agent.toml").write_text(text)
    with pytest.raises(UsageError, match=fault):
        load()


def test_a_wrong_variable_or_flag_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for nobody in ("", " ", "\t\n"):
        with pytest.raises(UsageError, match="--by: "):
            load(by=nobody)
    assert load(by=" ana ").by == "ana"
    monkeypatch.setenv("LAD_AGENT_MAX_BATCH", "none")
    with pytest.raises(UsageError, match="max_batch: "):
        load()


def test_every_setting_has_a_default() -> None:
    assert all(not field.is_required() for field in Settings.model_fields.values())
