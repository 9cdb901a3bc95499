"""`lad-agent doctor`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lad_agent.cli import options

if TYPE_CHECKING:
    from lad_agent.settings import Settings
    from lad_agent.store.holds import Broken, Hold
    from lad_agent.store.outbox import SinkState

PACKAGES = ("torch", "transformers", "langgraph", "sqlalchemy", "pillow", "pydantic", "openai")
EXTRAS = {"train": ("trl", "datasets", "opencv-python-headless"), "serve": ("fastapi", "uvicorn")}
ROOM_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `state` is ok, note, missing or alarm; the last two are faults."""

    name: str
    state: str
    detail: str
    remedy: str = ""


def doctor(
    store: options.Store = None,
    reasoner: options.Reasoner = None,
    as_json: options.Json = False,
) -> None:
    """Look at versions, device, model, store, holds, results on their way and disk.

    Exit codes: 4 if something is missing, 5 if an alarm stands or results do not arrive.
    """

    from lad_agent import settings
    from lad_agent.cli.tables import columns, print_json
    from lad_agent.errors import CheckFailed, PrerequisiteError

    chosen = settings.load(store=store, reasoner=reasoner)
    found = [
        *_versions(),
        _settings_file(),
        _device(),
        _model(chosen.reasoner),
        *_store(chosen),
        *_head(chosen),
        _disk(chosen),
    ]
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        rows = [(one.state, one.name, _told(one)) for one in found]
        typer.echo(columns(("", "what", "found"), rows))
    missing = [one for one in found if one.state == "missing"]
    if missing:
        first = missing[0]
        raise PrerequisiteError(f"{first.name}: {first.detail}; {first.remedy}")
    alarms = [one for one in found if one.state == "alarm"]
    if alarms:
        raise CheckFailed(f"alarm: {alarms[0].detail}; {alarms[0].remedy}")


def _told(one: Finding) -> str:
    return f"{one.detail}; {one.remedy}" if one.remedy else one.detail


def _versions() -> list[Finding]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def of(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    found = [
        Finding("lad-agent", "ok", of("lad-agent") or "not installed, run from its source"),
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}"),
    ]
    for name in PACKAGES:
        have = of(name)
        remedy = "" if have else "pip install lad-agent"
        found.append(Finding(name, "ok" if have else "missing", have or "not installed", remedy))
    for extra, names in EXTRAS.items():
        lacking = [name for name in names if of(name) is None]
        detail = f"not installed: {', '.join(lacking)}" if lacking else "installed"
        remedy = f"if wanted, pip install 'lad-agent[{extra}]'" if lacking else ""
        found.append(Finding(f"extra {extra}", "note" if lacking else "ok", detail, remedy))
    return found


def _settings_file() -> Finding:
    from lad_agent.settings import FILE

    there = Path(FILE).is_file()
    return Finding("settings", "ok", str(Path(FILE).absolute()) if there else "built in")


def _device() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("device", "missing", str(error), "pip install torch")
    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        return Finding("device", "ok", f"cuda: {torch.cuda.get_device_name(0)}")
    return Finding("device", "ok", f"cpu, {threads} threads")


def _model(spec: str) -> Finding:
    import json

    from lad_agent.errors import UsageError
    from lad_agent.reasoners import model_folder

    if spec.startswith(("http://", "https://")):
        return _served(spec)
    try:
        folder = model_folder(spec)
    except UsageError as error:
        return Finding("model", "missing", str(error), "name base and adapter")
    needed = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    index = (folder / "model.safetensors.index.json").is_file()
    lacking = [name for name in needed if not (folder / name).is_file()]
    if index and "model.safetensors" in lacking:
        lacking.remove("model.safetensors")
    if lacking:
        remedy = "lad-agent train pocket RUN, then --reasoner RUN"
        return Finding("model", "missing", f"{folder}: lacks {', '.join(lacking)}", remedy)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
    card = folder / "model_card.json"
    products = ""
    if card.is_file():
        try:
            made_for = json.loads(card.read_text(encoding="utf-8")).get("products") or []
        except ValueError:
            return Finding("model", "missing", f"{card}: not JSON", "copy the model folder again")
        products = f", for {', '.join(made_for)}" if made_for else ""
    return Finding("model", "ok", f"{folder}, {size:.1f} MB{products}")


def _served(spec: str) -> Finding:
    import socket
    from urllib.parse import urlsplit

    url = urlsplit(spec)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with socket.create_connection((url.hostname or "", port), timeout=3):
            return Finding("model", "ok", f"{spec}: a server answers at that port")
    except OSError as error:
        return Finding("model", "missing", f"{spec}: {error}", "start the server, or mend the URL")


def _store(chosen: Settings) -> list[Finding]:
    from lad_agent.errors import LadAgentError
    from lad_agent.store import InspectionFilter, ReviewFilter, holds, open_store, outbox, promises

    if "://" not in chosen.store and not Path(chosen.store).exists():
        return [Finding("store", "ok", f"{chosen.store}: not there yet, inspect makes it")]
    try:
        with open_store(chosen.store, create=False) as audit:
            count = audit.count(InspectionFilter())
            waiting = len(audit.reviews(ReviewFilter(decided=False)))
            schema, name = audit.schema_version, audit.name
            on, alarms = audit.ask(holds.holds), audit.ask(holds.alarms)
            unseen = holds.not_raised(audit.ask(promises.broken), alarms)
            void = audit.ask(promises.void)
            sinks = audit.ask(outbox.sinks)
    except LadAgentError as error:
        remedy = "give another --store until it is mended"
        return [Finding("store", "missing", str(error), remedy)]
    detail = f"{name}: schema {schema}, {count} inspections, {waiting} waiting for a person"
    return [
        Finding("store", "ok", detail),
        *(Finding("hold", "note", _held(one), _release(one.product)) for one in on),
        *(
            Finding("alarm", "alarm", f"{one}, since {one.raised_at[:16]}", _release(one.product))
            for one in alarms
        ),
        *(
            Finding("alarm", "alarm", f"{one.product}: {one.what}: {one.detail}", _raise(one))
            for one in unseen
        ),
        *(
            Finding("calibration", "note", f"{told}; until then every part goes to people")
            for told in void
        ),
        *(_sink(one) for one in sinks),
    ]


def _held(one: Hold) -> str:
    what = one.product or "all products"
    return f"{what}: every part goes to people, by {one.on_by} since {one.on_at[:16]}: {one.reason}"


def _raise(one: Broken) -> str:
    return (
        "nobody has raised that alarm yet (inspect, watch, serve and review decide do); "
        f"lad-agent hold on {one.product} --reason TEXT sends its parts to people"
    )


def _release(product: str | None) -> str:
    return f"once it is mended: lad-agent hold release {product or 'all'} --by NAME"


def _sink(one: SinkState) -> Finding:
    """Whether what a sink is to be told of arrives there."""
    from datetime import UTC, datetime

    told = f"{one.name} ({one.target}): {one.waiting} waiting"
    if one.oldest:
        told += f" since {one.oldest[:16]}"
    if one.error:
        told += f" ({one.error})"
    if one.given_up:
        remedy = "see lad-agent outbox list; once it is mended: lad-agent outbox retry --given-up"
        return Finding("outbox", "alarm", f"{told}, {one.given_up} given up", remedy)
    if one.needs_somebody(datetime.now(UTC)):
        remedy = "mend it, and let serve or watch run, or: lad-agent outbox send"
        return Finding("outbox", "alarm", told, remedy)
    return Finding("outbox", "ok", told)


def _head(chosen: Settings) -> list[Finding]:
    """How old the last head is that nobody who writes the database can reach."""
    from datetime import UTC, datetime

    from lad_agent.errors import LadAgentError
    from lad_agent.store.heads import read_file
    from lad_agent.store.signing import load_key

    remedy = "lad-agent audit keygen FILE, then set signing_key and heads_file"
    if chosen.signing_key is None:
        return [Finding("signed head", "note", "no signing key: heads are not signed", remedy)]
    try:
        load_key(chosen.signing_key)
        if chosen.heads_file is None:
            return [Finding("signed head", "note", "heads are not exported", "set heads_file")]
        there = read_file(chosen.heads_file) if chosen.heads_file.exists() else []
    except LadAgentError as error:
        return [Finding("signed head", "missing", str(error), "see docs/audit-ledger.md")]
    if not there:
        again = "lad-agent audit head"
        return [Finding("signed head", "note", f"{chosen.heads_file}: none exported yet", again)]
    age = datetime.now(UTC) - max(datetime.fromisoformat(head.at) for head in there)
    minutes = age.total_seconds() / 60
    old = minutes > 2 * chosen.head_every_minutes
    detail = f"{chosen.heads_file}: the last exported head is {minutes:.0f} minutes old"
    remedy = "lad-agent audit head" if old else ""
    return [Finding("signed head", "note" if old else "ok", detail, remedy)]


def _disk(chosen: Settings) -> Finding:
    import shutil

    folder = Path.cwd() if "://" in chosen.store else Path(chosen.store).absolute().parent
    if not folder.is_dir():
        return Finding("disk", "missing", f"{folder}: no such folder", "make it")
    free = shutil.disk_usage(folder).free / 1e9
    if free < ROOM_GB:
        return Finding("disk", "missing", f"{free:.2f} GB free at {folder}", "make room: 1 GB")
    return Finding("disk", "ok", f"{free:.0f} GB free at {folder}")
