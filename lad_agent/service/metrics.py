"""What Prometheus is told: how long parts take, how many are under way, and what became of them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lad_agent.graphs.runner import Done
from lad_agent.judgement import Result

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

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self.registry)
