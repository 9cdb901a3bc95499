"""Is what was signed still so? Heads, in the ledger and from outside, and seals of archives."""

from collections.abc import Mapping
from typing import Any

from lad_agent.store import heads, ledger
from lad_agent.store.faults import START, End, Faults, Kind, Row, as_bytes, as_text, name_of
from lad_agent.store.heads import Head
from lad_agent.store.models import escaped
from lad_agent.store.signing import is_signed


class SignedHeads:
    """The heads that one pass over the events compares with what it sees.

    `through` is the last archived event, `trusted` are the keys that count (all, where it is
    empty). `wanted` maps station and number of an event to the hash that a head from outside
    signed, until the pass has come there.
    """

    def __init__(
        self, own_ledger: str, through: int, trusted: frozenset[str], faults: Faults
    ) -> None:
        self._ledger, self._through, self._trusted = own_ledger, through, trusted
        self._faults = faults
        self._signatures: set[str] = set()
        self.wanted: dict[tuple[bytes, int], tuple[bytes, Head]] = {}
        self.signed_through = 0
        self.unchecked = 0

    @property
    def compared(self) -> int:
        """How many different heads were compared."""
        return len(self._signatures)

    def expect(self, head: Head, ends: Mapping[bytes, End]) -> None:
        """A head from outside: each of its chains must have stood there, `ends` at the archive."""
        if not self._is_own(head, next(iter(head.stations), "")):
            return
        if head.through < self._through:
            self.unchecked += 1
            return
        self._signatures.add(head.signature)
        self.signed_through = max(self.signed_through, head.through)
        for name, end in head.stations.items():
            station, there = as_bytes(escaped(name)), (end["seq"], as_bytes(end["hash"]))
            at_base = ends.get(station, START)
            if end["seq"] > self._through:
                self.wanted[station, end["seq"]] = (there[1], head)
            elif at_base[:2] != there:
                self._faults.add(station, end["seq"], Kind.EDITED, _not_signed(head))

    def compare(self, station: bytes, seq: int, digest: bytes) -> None:
        """The event that is wanted has this hash."""
        wanted, head = self.wanted.pop((station, seq))
        if digest != wanted:
            self._faults.add(station, seq, Kind.EDITED, _not_signed(head))

    def check(self, row: Row, last: Mapping[bytes, End]) -> None:
        """A head in the ledger must say where the pass has just seen every chain stand, `last`."""
        seq, station = row[0], row[1]
        try:
            head = heads.from_fields(ledger.read(as_text(row[6]))["payload"])
        except (ValueError, TypeError, KeyError, AttributeError):
            self._faults.add(station, seq, Kind.EDITED, "no head can be read in it")
            return
        if seq <= self._through or not self._is_own(head, name_of(station), seq):
            return
        self._signatures.add(head.signature)
        self.signed_through = max(self.signed_through, seq)
        for name, end in head.stations.items():
            at = as_bytes(escaped(name))
            # The head's own event has moved its chain on; its link tells where it stood.
            found = as_bytes(row[7]) if at == station else last.get(at, START)[1]
            if found != as_bytes(end["hash"]):
                self._faults.add(at, end["seq"], Kind.EDITED, _not_signed(head))

    def check_seal(self, payload: Mapping[str, Any]) -> None:
        """The last archive, by its event's payload, must be sealed as it says."""
        content = ledger.canonical_bytes(payload["sealed"])
        key, through = str(payload.get("public_key")), self._through
        if not is_signed(content, str(payload.get("signature")), key):
            self._faults.add(b"", through, Kind.BAD_SIGNATURE, "the seal of the archive")
        elif self._trusted and key not in self._trusted:
            self._faults.add(
                b"", through, Kind.FOREIGN, "the archive's seal is of a key not trusted"
            )

    def check_missing(self, last: Mapping[bytes, End]) -> None:
        """At the end of the pass: what was wanted and did not come."""
        for (station, seq), (_, head) in self.wanted.items():
            gone = last.get(station, START)[0] < seq
            kind = Kind.TRUNCATED if gone else Kind.DELETED
            self._faults.add(station, seq, kind, f"missing, but the head of {head.at} signed it")

    def _is_own(self, head: Head, station: str, seq: int | None = None) -> bool:
        name, seq = as_bytes(escaped(station)), seq or head.through
        if not head.valid:
            self._faults.add(
                name, seq, Kind.BAD_SIGNATURE, f"the signature of the head of {head.at}"
            )
        elif head.ledger != self._ledger:
            self._faults.add(name, seq, Kind.FOREIGN, f"a head of another ledger, {head.ledger}")
        elif self._trusted and head.public_key not in self._trusted:
            key = head.public_key[:16]
            self._faults.add(name, seq, Kind.FOREIGN, f"a head signed by a key not trusted, {key}")
        else:
            return True
        return False


def _not_signed(head: Head) -> str:
    return f"not what the head of {head.at} signed"
