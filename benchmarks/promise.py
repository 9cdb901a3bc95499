"""How often a promise is kept: many calibrations on disjoint parts, each held to all the others.

    python -m benchmarks.promise [--sets 200] [--good 40] [--bad 299] [--count 5000]
                                 [--escape 0.01] [--product NAME | --product all] [--fault KIND]
                                 [--model FOLDER] [--keep DIR] [--jobs N]

For each promised escape rate (5% and 1% unless `--escape` names others), at 95%, `--sets`
calibrations are made as `lad-agent calibrate` makes them, each on a set of freshly drawn parts of
its own. 299 bad parts are the fewest that can promise 1%, and 59 the fewest for 5%: there some of
a set's parts fit the confidence model where enough verdicts are wrong, for 1% all of them choose
the threshold. Beside it the naive way: the most lenient threshold on the raw confidence that kept
the rate on the very same set.

A calibration knows nothing of the other sets' parts, so it is measured on all of them: with 200
sets on 59,501 bad ones, and an escape rate of 1% is then known to within 0.08% (two standard
errors). The same is measured on `--count` bad parts from beyond the ranges of training, and a fifth
as many good ones: there no promise was made.

Of the sets that were not refused it counts those whose escape rate was within the promise, with the
exact 95% interval of that share; a promise at 95% is broken where that interval lies below 0.95.

To keep it short the parts are pushpins, whose rationales are the shortest, with one greedy
rationale each; `--product` and `--fault` choose others, `--product all` mixes all five.

Judgements are kept (`--keep`), and a run that was killed goes on: leave the long run in the
background. At full size 73,800 judgements, some 45 minutes on two cores. 200 calibrations for 5%
and 100 for 1% share 43,900, some 25 minutes:

    python -m benchmarks.promise --escape 0.05 --sets 200 --bad 149
    python -m benchmarks.promise --escape 0.01 --sets 100

`--sets 20 --count 500` takes five minutes.
"""

import sys
from collections.abc import Mapping, Sequence

from benchmarks import judged
from benchmarks.judged import FAULTS, GREEDY
from lad_agent.training import synloco
from lad_agent.training.calibration import Asked, promises
from lad_agent.training.calibration.trials import Trials, Way, run

ESCAPES = (0.05, 0.01)
SURE = 0.95
BEYOND = "beyond the ranges"


def main() -> None:
    parser = judged.arguments(__doc__, count=5000)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--good", type=int, default=40)
    parser.add_argument("--bad", type=int)
    parser.add_argument("--escape", type=float, action="append")
    parser.add_argument("--product", choices=[*synloco.PRODUCTS, "all"], default="pushpins")
    parser.add_argument("--fault", choices=FAULTS)
    options = parser.parse_args()
    escapes = options.escape or ESCAPES
    good, bad = options.good, options.bad or max(promises.needed(e, SURE) for e in escapes)
    products = synloco.PRODUCTS if options.product == "all" else (options.product,)
    faults = (options.fault,) if options.fault else FAULTS
    inside = judged.mixed("train", options.sets * good, options.sets * bad, products, faults)
    beyond = judged.mixed("held-out", options.count // 5, options.count, products, faults)
    found = judged.parts(
        [*inside, *beyond], options.model, options.keep, way=GREEDY, jobs=options.jobs
    )
    pool, elsewhere = found[: len(inside)], {BEYOND: found[len(inside) :]}
    task = judged.asked(products[0], GREEDY, options.keep)
    trials: dict[float, Mapping[str, Trials]] = {}
    for escape in escapes:
        print(f"calibrating for {escape:.0%}", file=sys.stderr)
        asked = Asked(escape, sure=SURE)
        trials[escape] = run(pool, elsewhere, task, asked, sets=options.sets, good=good, bad=bad)
    print(judged.table(rows(trials)))
    others = options.sets - 1
    print(
        f"\n{options.sets} disjoint sets of {good} good and {bad} bad parts; each calibration is "
        f"measured on the {others * bad} bad and {others * good} good parts of the other sets, and "
        f"on {options.count} bad and {options.count // 5} good ones from beyond the ranges of "
        f"training. In brackets: 95%, exact. Valid for {options.product}, "
        f"{' and '.join(faults)} faults in equal shares, one greedy rationale a part, and the "
        f"model in {options.model}."
    )


def rows(found: Mapping[float, Mapping[str, Trials]]) -> list[list[str]]:
    """Heading, and a row for each promise, group of parts and way."""
    out = [
        ["promise", "parts", "way", "kept its word", "broke it, of all", "escapes, mean", "worst",
         "good parts decided", "bad parts decided", "refused", "confidence learned"]
    ]  # fmt: skip
    for escape, groups in found.items():
        for group, trials in groups.items():
            for name, way in (("promised", trials.promised), ("naive", trials.naive)):
                counts = (str(trials.refused), str(trials.learned))
                ends = counts if name == "promised" else ("-", "-")
                refused = trials.refused if name == "promised" else 0
                out.append(
                    [f"{escape:.0%} at {SURE:.0%}", group, name, *_cells(way, refused), *ends]
                )
    return out


def _cells(way: Way | None, refused: int) -> Sequence[str]:
    if way is None:
        return ("-",) * 6
    low, high = way.interval
    return (
        f"{way.kept} of {way.made}: {way.kept / way.made:.1%} ({low:.1%}-{high:.1%})",
        f"{way.made - way.kept} of {way.made + refused}",
        f"{way.escape_rate:.2%}",
        f"{way.worst:.2%}",
        f"{way.coverage_good:.1%}",
        f"{way.coverage_bad:.1%}",
    )


if __name__ == "__main__":
    main()
