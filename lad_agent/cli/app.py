"""`lad-agent`: the command line. Errors are one line on stderr and an exit code, no traceback."""

import sys

import typer

from lad_agent.cli import (
    audit,
    calibrate,
    doctor,
    evaluate,
    hold,
    inspect,
    ledger,
    outbox,
    recipe,
    review,
    serve,
    store,
    synth,
    train,
    users,
    watch,
)
from lad_agent.errors import LadAgentError

app = typer.Typer(
    name="lad-agent",
    help="Inspect parts for logical anomalies, with a reason for every verdict.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("inspect")(inspect.inspect)
app.add_typer(review.app, name="review")
audit.app.command("verify")(ledger.verify)
audit.app.command("keygen")(ledger.keygen)
audit.app.command("head")(ledger.head)
app.add_typer(audit.app, name="audit")
app.add_typer(store.app, name="store")
app.add_typer(recipe.app, name="recipe")
app.command("synth")(synth.synth)
app.add_typer(train.app, name="train")
app.command("watch")(watch.watch)
app.command("serve")(serve.serve)
app.add_typer(users.app, name="users")
app.add_typer(outbox.app, name="outbox")
app.add_typer(hold.app, name="hold")
app.command("evaluate")(evaluate.evaluate)
app.command("calibrate")(calibrate.calibrate)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line and exit with the code of `lad_agent.errors`."""
    try:
        app(prog_name="lad-agent")
    except LadAgentError as error:
        print(f"lad-agent: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ImportError as error:
        _missing(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _missing(error: ImportError) -> None:
    """A package of an extra that is not installed is a prerequisite, anything else a fault."""
    extras = {
        "cv2": "train",
        "datasets": "train",
        "matplotlib": "train",
        "trl": "train",
        "sklearn": "train",
        "fastapi": "serve",
        "uvicorn": "serve",
        "jinja2": "serve",
        "argon2": "serve",
        "prometheus_client": "serve",
        "pyarrow": "parquet",
    }
    extra = extras.get((error.name or "").partition(".")[0])
    if extra is None:
        raise error
    print(
        f"lad-agent: {error.name} is not installed; pip install 'lad-agent[{extra}]'",
        file=sys.stderr,
    )
    sys.exit(4)
