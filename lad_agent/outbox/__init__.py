"""Results out: what the store's outbox holds is delivered to sinks, in order per part.

A sink is somewhere that results go: `webhook.Webhook` is the first, and whatever has the four
members of `sink.Sink` can be another. `delivery` carries messages there from any process that
runs for long (`serve`, `watch`), one at a time for each sink.
"""

from lad_agent.outbox.configured import delivering, pace, sinks, subscribe
from lad_agent.outbox.delivery import Pace, deliver_all, keep_delivering
from lad_agent.outbox.sink import Answer, Away, Delivered, Refused, Sink

__all__ = [
    "Answer",
    "Away",
    "Delivered",
    "Pace",
    "Refused",
    "Sink",
    "deliver_all",
    "delivering",
    "keep_delivering",
    "pace",
    "sinks",
    "subscribe",
]
