"""Every error this package raises on purpose, each with the exit code of the command line.

    LadAgentError                     1
    |-- UsageError                    2   wrong argument, setting or file given by the user
    |   |-- RecipeError               2   a recipe that cannot be used; names file, line and remedy
    |   |-- NotFound                  2   an id, product or review that is not there
    |   |-- Conflict                  2   decided already, or in another's hand; says by whom
    |   `-- NeedsReason               2   a finding against the reasoner, without saying why
    |-- UnreadableInput               3   an image that could not be read (recorded, never passed)
    |-- PrerequisiteError             4   something to install, start or free first
    |   |-- ModelError                4   a model folder that lacks files or is another architecture
    |   `-- StoreError                4   the audit store cannot be used as it is
    |       |-- StoreLocked           4   another process holds it
    |       |-- StoreReadOnly         4   no right to write
    |       |-- StoreCorrupt          4   not a database, or damaged
    |       `-- StoreSchema           4   made by a newer or older version
    |-- CheckFailed                   5   a check that the command exists for has failed
    |-- TooManyFailures               6   stopped early by --max-failures
    `-- ReasonerError                 4   the reasoner could not answer
        |-- ReasonerTimeout           4   not in time
        `-- ReasonerUnavailable       4   not reachable, or overloaded

A message is one line: what is wrong, with which thing, and the remedy. Errors of lower libraries
are mapped to these at the border and kept as `__cause__`.
"""

__all__ = [
    "CheckFailed",
    "Conflict",
    "LadAgentError",
    "ModelError",
    "NeedsReason",
    "NotFound",
    "PrerequisiteError",
    "ReasonerError",
    "ReasonerTimeout",
    "ReasonerUnavailable",
    "RecipeError",
    "StoreCorrupt",
    "StoreError",
    "StoreLocked",
    "StoreReadOnly",
    "StoreSchema",
    "TooManyFailures",
    "UnreadableInput",
    "UsageError",
]


class LadAgentError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code: int = 1


class UsageError(LadAgentError):
    """A wrong argument, setting or file given by the user."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be used."""


class NotFound(UsageError):
    """Nothing there under the given id or name."""


class Conflict(UsageError):
    """Somebody else was first; what they did stands."""


class NeedsReason(UsageError):
    """A finding against the reasoner; its comment must say why."""


class UnreadableInput(LadAgentError):
    """An image that could not be read; it is recorded as NotDecidable."""

    exit_code = 3


class PrerequisiteError(LadAgentError):
    """Something must be installed, started or freed first."""

    exit_code = 4


class ModelError(PrerequisiteError):
    """A model folder that lacks files or holds another architecture."""


class StoreError(PrerequisiteError):
    """The audit store cannot be used as it is."""


class StoreLocked(StoreError):
    """Another process holds the store."""


class StoreReadOnly(StoreError):
    """No right, or no room, to write the store."""


class StoreCorrupt(StoreError):
    """Not a database, or a damaged one."""


class StoreSchema(StoreError):
    """The store was made by another version of this package."""


class CheckFailed(LadAgentError):
    """A check that the command exists for has failed."""

    exit_code = 5


class TrainingEnded(CheckFailed):
    """A run of training ended itself: it taught nothing, or the wrong thing."""


class TooManyFailures(LadAgentError):
    """Stopped early by `--max-failures`."""

    exit_code = 6


class ReasonerError(LadAgentError):
    """The reasoner could not answer."""

    exit_code = 4


class ReasonerTimeout(ReasonerError):
    """The reasoner did not answer in time."""


class ReasonerUnavailable(ReasonerError):
    """The reasoner is not reachable, or overloaded."""
