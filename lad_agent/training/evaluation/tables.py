"""The figures as tables: rows of text, and these as Markdown."""

from collections.abc import Iterable, Sequence

from lad_agent.training.evaluation.figures import Metrics

VERDICTS = {
    "bal. acc.": "balanced_accuracy",
    "bal. acc. logical": "logical/balanced_accuracy",
    "bal. acc. structural": "structural/balanced_accuracy",
    "accuracy": "accuracy",
    "F1": "f1",
    "AUROC": "auroc",
    "AUROC logical": "logical/auroc",
    "AUROC structural": "structural/auroc",
    "escapes": "escape_rate",
    "overkill": "overkill_rate",
    "coverage": "coverage",
    "well-formed": "well_formed",
    "cause named": "cause_named",
}
CONFIDENCE = {
    "wrong": "wrong",
    "knows its errors": "knows_its_errors",
    "AURC": "aurc",
    "ECE": "expected_calibration_error",
    "Brier": "brier",
    "covered at 0.5% errors": "coverage_at_0.005",
    "at 1%": "coverage_at_0.01",
    "at 5%": "coverage_at_0.05",
}


def markdown(figures: Metrics) -> str:
    """The figures, the sources of confidence, and what was left out, as Markdown."""
    parts = [table(figures)]
    if figures["overall"]["confidence_sources"]:
        parts.append(_markdown(confidence_rows(figures["overall"])))
    parts.append("\n".join(notes(figures)))
    return "\n\n".join(part for part in parts if part)


def table(figures: Metrics) -> str:
    """The figures as a Markdown table, one row a product, then one an answer for all."""
    return _markdown(verdict_rows(figures))


def verdict_rows(figures: Metrics) -> list[list[str]]:
    """Heading, all, each product, always yes, always no."""
    base = figures["overall"]["baselines"]
    groups = {
        "all": figures["overall"],
        **figures["products"],
        "always yes": base["always_yes"],
        "always no": base["always_no"],
    }
    return [
        ["product", "n", *VERDICTS],
        *(_row(n, g, VERDICTS.values()) for n, g in groups.items()),
    ]


def confidence_rows(group: Metrics) -> list[list[str]]:
    """Heading, then each source of confidence of one group."""
    sources = group["confidence_sources"]
    return [
        ["confidence", "n", *CONFIDENCE],
        *(_row(name, found, CONFIDENCE.values()) for name, found in sources.items()),
    ]


def notes(figures: Metrics) -> list[str]:
    """What a reader must know about the tables, a sentence each."""
    told = []
    if drawn := figures["bootstrap"]:
        told.append(
            f"In brackets: {drawn['level']:.0%} intervals, stratified percentile bootstrap over "
            f"pictures, {drawn['draws']} draws, seed {drawn['seed']}; in the first table exact "
            "where a rate is 0 or 1."
        )
    if repeated := figures["repeated"]:
        told.append(
            f"{repeated} lines are earlier attempts at the same image: the last attempt counts."
        )
    if without := figures["without_truth"]:
        told.append(f"{without} lines are of images without a truth: left out.")
    if learned := figures["for_training"]:
        told.append(
            f"{learned} pictures are of the split train: a model that learned from them knows them "
            "by heart."
        )
    return told


def _row(name: str, group: Metrics, fields: Iterable[str]) -> list[str]:
    return [name, str(group["n"]), *(_cell(group, field) for field in fields)]


def _cell(group: Metrics, field: str) -> str:
    *outer, name = field.split("/")
    for key in outer:
        group = group.get(key) or {}
    value = group.get(name)
    if value is None or isinstance(value, int):
        return "-" if value is None else str(value)
    ends = group.get("intervals", {}).get(name)
    return f"{value:.3f}" + (f" ({ends[0]:.3f}-{ends[1]:.3f})" if ends else "")


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
