"""How often a promise is kept: many calibrations on disjoint parts, each held to all the others.

    python -m benchmarks.promise [--sets 200] [--good 100] [--bad 460] [--count 20000]
                                 [--escape 0.05] [--overkill 0.05]
                                 [--product NAME | --product all] [--fault KIND]
                                 [--model FOLDER] [--keep DIR] [--jobs N]

For each promised rate at 95% (5% and 1% of escapes and 5% of overkill, unless `--escape` or
`--overkill` name others, each as often as wanted), `--sets` calibrations are made as
`lad-agent calibrate` makes them, each on a set of freshly drawn parts of its own. All rates are
held to the same judgements. 299 bad parts are the fewest that can promise 1% of escapes, and 59
good ones the fewest for 5% of overkill. The default is more than these, so that three tenths of a
set can fit the confidence model: that takes ten wrong verdicts among them, and `confidence
learned` says how many sets had them. Beside it stands the naive way: the most lenient threshold on
the raw confidence that kept the rate on the very same set.

A calibration knows nothing of the other sets' parts, so it is measured on all of them: with 200
sets on 91,540 bad ones, and an escape rate of 1% is then known to within 0.07% (two standard
errors). The same is measured on `--count` bad parts from beyond the ranges of training, and a fifth
as many good ones: there no promise was made.

What the theory promises is that at most 5% of all tries give a promise and break it. So the first
figure counts, of all sets, those whose promise was kept or refused, with the exact 95% interval of
that share; the promise at 95% is broken where that interval lies below 0.95. The second counts the
kept among the given. Nothing is promised of it: the sets that are not refused are the luckier ones.

To keep it short the parts are pushpins, whose rationales are the shortest, with one greedy
rationale each; `--product` and `--fault` choose others, `--product all` mixes all five.

Judgements are kept (`--keep`), fewer sets and parts are the first of more, and a run that was
killed goes on: leave the long run in the background. At full size 136,000 judgements, some 40
minutes on two cores. With `--good 100 --bad 299 --count 5000` it is 86,000, and the confidence is
never learned for 1%; `--sets 20 --count 500` takes three and a half.
"""

import sys
from collections.abc import Mapping, Sequence

from benchmarks import judged
from benchmarks.judged import FAULTS, GREEDY
from lad_agent.confidence import percent
from lad_agent.training import synloco
from lad_agent.training.calibration import Asked
from lad_agent.training.calibration.trials import Trials, Way, run

ESCAPES = (0.05, 0.01)
OVERKILLS = (0.05,)
SURE = 0.95
BEYOND = "beyond the ranges"


def main() -> None:
    parser = judged.arguments(__doc__, count=20_000)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--good", type=int, default=100)
    parser.add_argument("--bad", type=int, default=460)
    parser.add_argument("--escape", type=float, action="append", default=[])
    parser.add_argument("--overkill", type=float, action="append", default=[])
    parser.add_argument("--product", choices=[*synloco.PRODUCTS, "all"], default="pushpins")
    parser.add_argument("--fault", choices=FAULTS)
    options = parser.parse_args()
    good, bad = options.good, options.bad
    products = synloco.PRODUCTS if options.product == "all" else (options.product,)
    faults = (options.fault,) if options.fault else FAULTS
    inside = judged.mixed("train", options.sets * good, options.sets * bad, products, faults)
    beyond = judged.mixed("held-out", options.count // 5, options.count, products, faults)
    found = judged.parts(
        [*inside, *beyond], options.model, options.keep, way=GREEDY, jobs=options.jobs
    )
    pool, elsewhere = found[: len(inside)], {BEYOND: found[len(inside) :]}
    task = judged.asked(products[0], GREEDY, options.keep)
    named = options.escape or options.overkill
    rates = (options.escape, options.overkill) if named else (ESCAPES, OVERKILLS)
    trials: dict[str, Mapping[str, Trials]] = {}
    for words, one in asked(*rates).items():
        print(f"calibrating for {words}", file=sys.stderr)
        trials[words] = run(pool, elsewhere, task, one, sets=options.sets, good=good, bad=bad)
    print(judged.table(rows(trials)))
    others = options.sets - 1
    print(
        f"\nPromised with certainty {SURE:.0%}. {options.sets} disjoint sets of {good} good and "
        f"{bad} bad parts; each calibration is measured on the {others * bad} bad and "
        f"{others * good} good parts of the other sets, and on {options.count} bad and "
        f"{options.count // 5} good ones from beyond the ranges of training. In brackets: 95%, "
        f"exact. Valid for {options.product}, {' and '.join(faults)} faults in equal shares, one "
        f"greedy rationale a part, and the model in {options.model}."
    )


def asked(escapes: Sequence[float], overkills: Sequence[float]) -> dict[str, Asked]:
    """What is promised, by its words."""
    return {f"{percent(rate)} escapes": Asked(rate, sure=SURE) for rate in escapes} | {
        f"{percent(rate)} overkill": Asked(None, rate, sure=SURE) for rate in overkills
    }


def rows(found: Mapping[str, Mapping[str, Trials]]) -> list[list[str]]:
    """Heading, and a row for each promise, group of parts and way."""
    out = [
        ["at most", "parts", "way", "kept or refused", "kept, of those given", "harm, mean",
         "worst", "good parts decided", "bad parts decided", "refused", "confidence learned"]
    ]  # fmt: skip
    for words, groups in found.items():
        for group, trials in groups.items():
            counts = str(trials.refused), str(trials.learned)
            out.append([words, group, "promised", *_cells(trials.promised), *counts])
            out.append([words, group, "naive", *_cells(trials.naive), "-", "-"])
    return out


def _cells(way: Way) -> Sequence[str]:
    held = _share(way.held, way.sets, way.held_interval)
    if not way.given:
        return (held, *["-"] * 5)
    return (
        held,
        _share(way.kept, way.given, way.kept_interval),
        f"{way.harm_rate:.2%}",
        f"{way.worst:.2%}",
        f"{way.coverage_good:.1%}",
        f"{way.coverage_bad:.1%}",
    )


def _share(seen: int, of: int, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{seen} of {of}: {seen / of:.1%} ({low:.1%}-{high:.1%})"


if __name__ == "__main__":
    main()
