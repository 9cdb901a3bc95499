"""How often a promise is kept: many calibrations on disjoint parts, each held to fresh ones.

    python -m benchmarks.promise [--sets 200] [--count 20000] [--escape 0.01] [--product NAME]
                                 [--greedy] [--model FOLDER] [--keep DIR] [--jobs N]

For each promised escape rate (5% and 1% unless `--escape` names others), at 95%, `--sets`
calibrations are made on disjoint, freshly drawn parts, each as `lad-agent calibrate` makes it: some
parts fit the confidence model, the others choose the threshold. Each is then measured on `--count`
anomalous parts that are in no set, and as many from beyond the ranges of training, with a quarter
as many good ones. Beside it the naive way: the most lenient threshold on the raw confidence that
kept the rate on the very same set. All five products are mixed in equal shares, as on one line,
unless `--product` names one.

Of the sets that were not refused it counts those whose escape rate on the fresh parts was within
the promise, with the exact 95% interval of that share; a promise at 95% is broken where that
interval lies below 0.95. The fresh parts measure an escape rate of 1% to within 0.14% (two standard
errors at 20,000), so sets near the promise are counted with that much of chance.

Judgements are kept (`--keep`), and a run that was killed goes on: leave the long run in the
background. At full size some 170,000 judgements, five hours on two cores (two with `--greedy`,
which asks for one rationale a part), then minutes of calibrating;
`--greedy --escape 0.05 --sets 20 --count 500` takes five minutes.
"""

import math
import sys
from collections.abc import Mapping, Sequence

from benchmarks import judged
from benchmarks.judged import GREEDY, SHIPPED
from lad_agent.training import synloco
from lad_agent.training.calibration import Asked, Part, promises
from lad_agent.training.calibration.trials import Trials, Way, run

ESCAPES = (0.05, 0.01)
SURE = 0.95
GOOD = 100
"""Good parts of a set: they fit the confidence model, and no promise of escapes rests on them."""

SPARE = 1.7
"""Bad parts of a set, as a multiple of the fewest that can promise: some of them are fitted on."""


def main() -> None:
    parser = judged.arguments(__doc__, count=20_000)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--escape", type=float, action="append")
    parser.add_argument("--product", choices=synloco.PRODUCTS)
    parser.add_argument("--greedy", action="store_true")
    options = parser.parse_args()
    escapes = options.escape or list(ESCAPES)
    products = (options.product,) if options.product else synloco.PRODUCTS
    way = GREEDY if options.greedy else SHIPPED
    sizes = {escape: math.ceil(SPARE * promises.needed(escape, SURE)) for escape in escapes}
    good, bad = options.count // 4, options.count
    pool_good, pool_bad = options.sets * GOOD, options.sets * max(sizes.values())

    def kept(split: synloco.Split, good: int, bad: int) -> list[Part]:
        keys = judged.mixed(split, good, bad, products)
        return judged.parts(keys, options.model, options.keep, way=way, jobs=options.jobs)

    inside = kept("train", good + pool_good, bad + pool_bad)
    inside_good, inside_bad = inside[: good + pool_good], inside[good + pool_good :]
    fresh = {
        "as calibrated": [*inside_good[:good], *inside_bad[:bad]],
        "beyond the ranges": kept("held-out", good, bad),
    }
    pool = [*inside_good[good:], *inside_bad[bad:]]
    task = judged.asked(products[0], way, options.keep)
    found: dict[float, Mapping[str, Trials]] = {}
    for escape, size in sizes.items():
        print(f"calibrating for {escape:.0%} on sets of {GOOD} good, {size} bad", file=sys.stderr)
        asked = Asked(escape, sure=SURE)
        found[escape] = run(pool, fresh, task, asked, sets=options.sets, good=GOOD, bad=size)
    print(judged.table(rows(found)))
    print(
        f"\n{options.sets} sets of {GOOD} good parts and "
        + " or ".join(f"{size} bad ones (for {escape:.0%})" for escape, size in sizes.items())
        + f"; {bad} fresh bad parts and {good} good ones. In brackets: 95%, exact. Valid for these "
        f"products, their mix of faults, and the model in {options.model}."
    )


def rows(found: Mapping[float, Mapping[str, Trials]]) -> list[list[str]]:
    """Heading, and a row for each promise, group of parts and way."""
    out = [
        ["promise", "fresh parts", "way", "kept its word", "escapes, mean", "worst", "coverage",
         "refused"]
    ]  # fmt: skip
    for escape, groups in found.items():
        for group, trials in groups.items():
            for name, way in (("promised", trials.promised), ("naive", trials.naive)):
                refused = str(trials.refused) if name == "promised" else "-"
                out.append([f"{escape:.0%} at {SURE:.0%}", group, name, *_cells(way), refused])
    return out


def _cells(way: Way | None) -> Sequence[str]:
    if way is None:
        return "-", "-", "-", "-"
    low, high = way.interval
    return (
        f"{way.kept} of {way.made}: {way.kept / way.made:.1%} ({low:.1%}-{high:.1%})",
        f"{way.escape_rate:.2%}",
        f"{way.worst:.2%}",
        f"{way.coverage:.1%}",
    )


if __name__ == "__main__":
    main()
