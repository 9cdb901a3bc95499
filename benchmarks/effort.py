"""What more effort buys: cost of a part against coverage at equal risk, way by way.

    python -m benchmarks.effort [--count 200] [--model FOLDER] [--keep DIR] [--jobs N]

`--count` is the number of parts a product, half of them anomalous. The same parts are judged with
one greedy rationale each; with four more drawn for those in doubt; with four more for all; and with
three or seven more under other references (four or eight in all) for those in doubt. Doubt is a
weakest token below the shipped recipes' `sample_below`. Coverage is the share decided without a
person where 1% of the decided are wrong: confidence is learned and the threshold chosen on other
parts than are counted (see `benchmarks.confidence`), so the errors that came out stand beside it.
What a way gains is paired: the same parts are drawn anew for both ways, and the interval is that of
the difference. Seconds are those of one process of one thread, batches of 64 shared out, and belong
to the machine; tokens do not.

Judgements are kept (`--keep`), and a run that was killed goes on. By default 5,000 judgements, some
ten minutes on two cores; `--count 40` takes three.
"""

from functools import partial

import numpy as np

from benchmarks import judged
from benchmarks.confidence import ERROR, Scored, in_turns, learned
from benchmarks.judged import GREEDY, SHIPPED, Way
from lad_agent.promise import SURE, lower_bound, upper_bound
from lad_agent.training import synloco
from lad_agent.training.evaluation import Resampling, bootstrap
from lad_agent.training.evaluation.scores import Floats

WAYS = {
    "one greedy rationale": GREEDY,
    "and 4 drawn for the doubtful": SHIPPED,
    "and 4 drawn for all": Way("all", {"sample_below": 1.0}),
    "and 3 other references for the doubtful": Way(
        "references", {"samples": 0, "other_references": 3}, references=4
    ),
    "and 7 other references for the doubtful": Way(
        "references-8", {"samples": 0, "other_references": 7}, references=8
    ),
}


def main() -> None:
    options = judged.arguments(__doc__, count=200).parse_args()
    half = options.count * len(synloco.PRODUCTS) // 2
    keys = judged.mixed("train", half, half)
    rows = [
        ["way", "asked more", "seconds a part", "tokens a part", "verdicts right",
         f"coverage at {ERROR:.0%} errors", "gained by it", "wrong of the decided"]
    ]  # fmt: skip
    judge = partial(judged.parts, keys, options.model, options.keep, jobs=options.jobs)
    scored = {name: in_turns(judge(way=way), learned) for name, way in WAYS.items()}
    first = next(iter(scored.values()))
    rows += [[name, *row(one, first)] for name, one in scored.items()]
    print(judged.table(rows))
    print(f"\n{len(keys)} parts. In brackets: {SURE:.0%}, exact; of what is gained, by bootstrap.")


def row(scored: Scored, first: Scored) -> list[str]:
    """The figures of one way, beside those of the first one on the same parts."""
    parts = scored.parts
    said = [part.judgement for part in parts]
    decided = int(scored.accepted.sum())
    return [
        f"{np.mean([judgement.samples > 0 for judgement in said]):.1%}",
        f"{np.mean([judgement.elapsed_s for judgement in said]):.4f}",
        f"{np.mean([judgement.tokens for judgement in said]):.0f}",
        f"{np.mean([part.right for part in parts]):.1%}",
        f"{scored.coverage:.1%} ({_interval(decided, len(parts))})",
        _gained(scored, first) if scored is not first else "-",
        f"{scored.wrong} of {decided} ({_interval(scored.wrong, decided)})",
    ]


def _gained(scored: Scored, first: Scored) -> str:
    """Points of coverage, the parts paired."""
    moved = scored.accepted.astype(float) - first.accepted

    def figure(weights: Floats) -> dict[str, Floats]:
        return {"moved": weights @ moved / len(moved)}

    strata = [(part.example.product, part.example.kind) for part in scored.parts]
    ends = bootstrap.intervals(figure, strata, Resampling())["moved"]
    assert ends is not None
    return f"{100 * moved.mean():+.1f} ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})"


def _interval(seen: int, of: int) -> str:
    tail = (1 + SURE) / 2
    return f"{lower_bound(seen, of, tail):.1%}-{upper_bound(seen, of, tail):.1%}"


if __name__ == "__main__":
    main()
