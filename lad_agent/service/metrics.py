"""What Prometheus is told: how long parts take, how many are under way, and what became of them."""

from collections import Counter as Count
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from lad_agent.graphs.runner import Done
from lad_agent.judgement import Result
from lad_agent.service.standing import Standing

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "lad_agent_inspection_seconds",
            "From the part's acceptance to its recorded result.",
            ["product"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._results = Counter(
            "lad_agent_results",
            "Parts by the result of reasoner and policy.",
            ["product", "result"],
            registry=self.registry,
        )
        self._escalated = Gauge(
            "lad_agent_escalation_share",
            "Share of the parts since the start that were not decidable.",
            registry=self.registry,
        )
        self.queue = Gauge(
            "lad_agent_queue",
            "Parts that were accepted and are not recorded yet.",
            registry=self.registry,
        )
        self.refused = Counter(
            "lad_agent_refused",
            "Parts that were not accepted because the queue was full.",
            registry=self.registry,
        )
        self._count = self._undecided = 0

    def done(self, done: Done, seconds: float) -> None:
        """Count one part; what was recorded earlier counts no more."""
        if done.earlier:
            return
        outcome = done.outcome
        self._seconds.labels(outcome.product).observe(seconds)
        self._results.labels(outcome.product, outcome.result.value).inc()
        self._count += 1
        self._undecided += outcome.result is Result.NOT_DECIDABLE
        self._escalated.set(self._undecided / self._count)

    def text(self, standing: Standing, products: Iterable[str]) -> bytes:
        """All figures in Prometheus's text format; of `products` those too that nothing holds."""
        return generate_latest(self.registry) + generate_latest(_Now(standing, products))


@dataclass(frozen=True)
class _Now:
    """What the store says, read anew for every answer: other processes change it too."""

    standing: Standing
    products: Iterable[str]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        held = Count(one.product or "all" for one in self.standing.holds)
        alarming = Count(one.product for one in self.standing.alarms)
        yield _gauge(
            "lad_agent_holds",
            "Holds that are on; product all: every part of every product goes to people.",
            "product",
            {**dict.fromkeys((*self.products, "all"), 0), **held},
        )
        yield _gauge(
            "lad_agent_alarms",
            "Alarms that nobody has answered.",
            "product",
            {**dict.fromkeys(self.products, 0), **alarming},
        )
        sinks, moment = self.standing.sinks, datetime.now(UTC)
        yield _gauge(
            "lad_agent_outbox_waiting",
            "Messages that wait to be delivered.",
            "sink",
            {one.name: one.waiting for one in sinks},
        )
        yield _gauge(
            "lad_agent_outbox_oldest_seconds",
            "How long the oldest of them has waited.",
            "sink",
            {one.name: one.waits_s(moment) for one in sinks},
        )
        yield _gauge(
            "lad_agent_outbox_given_up",
            "Messages that were refused for good.",
            "sink",
            {one.name: one.given_up for one in sinks},
        )


def _gauge(name: str, told: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    found = GaugeMetricFamily(name, told, labels=[label])
    for value, number in values.items():
        found.add_metric([value], number)
    return found
