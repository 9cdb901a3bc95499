"""Failed logins, counted by name and by address, so that passwords cannot be guessed."""

import threading
import time
from collections import OrderedDict, deque

MOST = 5
MOST_OF_ADDRESS = 20
"""More than for one name: behind one address may sit a whole shift."""
WITHIN_S = 300.0
KEPT = 10_000
"""How many names and addresses are remembered; the oldest go first."""


class Attempts:
    """Counts failures within the last five minutes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, name: str, address: str) -> float:
        """How long to wait before the next try; 0 if not at all."""
        moment = time.monotonic()
        with self._lock:
            return max(self._wait(name, MOST, moment), self._wait(address, MOST_OF_ADDRESS, moment))

    def failed(self, name: str, address: str) -> None:
        """Count a failure for both."""
        moment = time.monotonic()
        with self._lock:
            for one in (name, address):
                self._failed.setdefault(one, deque(maxlen=MOST_OF_ADDRESS)).append(moment)
                self._failed.move_to_end(one)
            while len(self._failed) > KEPT:
                self._failed.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        with self._lock:
            self._failed.pop(name, None)

    def _wait(self, one: str, most: int, moment: float) -> float:
        times = self._failed.get(one, ())
        return 0.0 if len(times) < most else max(0.0, times[-most] + WITHIN_S - moment)
