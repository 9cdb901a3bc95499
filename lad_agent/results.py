"""Results as files: `results.jsonl`, or the same as CSV."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from lad_agent import atomic
from lad_agent.errors import UsageError
from lad_agent.inspection import Outcome

SUFFIXES = (".jsonl", ".csv")

# What a formula begins with in a spreadsheet; of those in full width some programs make these.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def check_target(path: Path) -> None:
    """Refuse a place that results cannot be written to, before anything is inspected.

    Raises:
        UsageError: another suffix, or no folder there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path}: ends in neither .jsonl nor .csv")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: give a file in a folder that is there")


def write(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write one line an outcome; the file is whole or not there.

    Raises:
        UsageError: it cannot be written; the results stand in the store all the same.
    """
    text = _csv(outcomes) if path.suffix.lower() == ".csv" else "".join(map(line, outcomes))
    try:
        atomic.write(path, text)
    except OSError as error:
        raise UsageError(
            f"--out {path}: cannot be written ({error.strerror}); what was inspected is in the "
            "store, the same command writes it again"
        ) from error


def line(outcome: Outcome) -> str:
    """One line of `results.jsonl`, with its newline."""
    return outcome.model_dump_json() + "\n"


def neutral(value: object) -> object:
    """`value` as a cell of a CSV that no spreadsheet takes as a formula (after OWASP).

    >>> neutral("=HYPERLINK(1)"), neutral(-0.5), neutral("R1 ok")
    ("'=HYPERLINK(1)", -0.5, 'R1 ok')
    """
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def printable(text: str) -> str:
    """`text` with every control, direction and unencodable character written as its code.

    >>> printable("a\\x1b[2J\\u202eé")
    'a\\\\x1b[2J\\\\u202eé'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _csv(outcomes: Iterable[Outcome]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(Outcome.model_fields), lineterminator="\n")
    table.writeheader()
    for outcome in outcomes:
        row = outcome.model_dump(mode="json")
        row["places"] = " ".join(outcome.places)
        table.writerow({name: neutral(value) for name, value in row.items()})
    return text.getvalue()
