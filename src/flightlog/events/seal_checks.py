"""Are the seals of a log what its events come to? They are recomputed, from the first event on."""

from collections.abc import Mapping, Sequence
from itertools import takewhile

from flightlog.errors import LogError
from flightlog.events.merkle import Frontier, peak_sizes
from flightlog.events.notes import Checkpoint, PublicKey
from flightlog.events.problems import Problem, Verification
from flightlog.events.sealing import Seal, leaf_hashes, seal_of, seals
from flightlog.events.store import IndexedRow, Store
from flightlog.events.types import LOG_SEALED, SEALS_STREAM


class SealChecks:
    """Grows the tree along a walk through the log, and compares it with every seal on the way.

    Args:
        store: the log's store.
        found: where to say what was found.
        known: checkpoints that were seen before.
        keys: who may sign; empty if nobody says.
        absent: the hashes of the leaves that archived events are which cannot be read, by position.
    """

    def __init__(
        self,
        store: Store,
        found: Verification,
        known: Sequence[Checkpoint] = (),
        keys: Sequence[PublicKey] = (),
        absent: Mapping[int, bytes] = {},
    ) -> None:
        self._store = store
        self._found = found
        self._known = known
        self._keys = set(keys)
        self._absent = absent
        self._tree = Frontier()
        self._broken = False
        self._seals: dict[int, Seal] = {}
        self._last: Seal | None = None
        self._read_seals()
        self._sizes = sorted({*self._seals, *(one.size for one in known)}, reverse=True)

    def _read_seals(self) -> None:
        before = 0
        for row in seals(self._store):
            try:
                seal = seal_of(row, lambda digest: self._store.blobs([digest])[digest])
            except LogError:
                self._say("it is no seal: what a seal says is missing in it, or contradicts itself", row.position)
                continue
            if seal.first != before + 1 or seal.last >= row.position:
                self._say(f"this seal of the events from {seal.first} to {seal.last} follows one up to {before}", seal)
            before = seal.last
            self._seals[seal.last] = seal

    def _say(self, what: str, about: Seal | int) -> None:
        if isinstance(about, Seal):
            problem = Problem(what, about.position, SEALS_STREAM, about.version, LOG_SEALED)
        else:
            problem = Problem(what, about, SEALS_STREAM, None, LOG_SEALED)
        self._found.problems.append(problem)

    def take(self, rows: Sequence[IndexedRow], record_hashes: Sequence[bytes]) -> None:
        """Go on with the next events, and the hashes of their records."""
        if self._broken or not self._sizes:
            return
        self._grow(self._leaves(rows, leaf_hashes(rows, record_hashes)))
        if self._tree.size != rows[-1].position:
            self._broken = True  # from the first gap on no tree can be computed

    def _leaves(self, rows: Sequence[IndexedRow], hashes: list[bytes]) -> list[bytes]:
        """Return the hashes of the leaves behind the tree's end, up to some events, or to the first gap."""
        first, last = self._tree.size + 1, rows[-1].position
        if rows[0].position == first and last == self._tree.size + len(rows):
            return hashes
        known = {row.position: leaf for row, leaf in zip(rows, hashes, strict=True)}
        leaves = (known.get(position) or self._absent.get(position) for position in range(first, last + 1))
        return list(takewhile(bool, leaves))  # type: ignore[arg-type]

    def _grow(self, hashes: Sequence[bytes]) -> None:
        start = self._tree.size
        while self._sizes and self._sizes[-1] <= start + len(hashes) and not self._broken:
            size = self._sizes.pop()
            self._tree.extend(hashes[self._tree.size - start : size - start])
            self._compare(size)
        self._tree.extend(hashes[self._tree.size - start :])

    def _compare(self, size: int) -> None:
        root = self._tree.root()
        for seen in self._known:
            if seen.size != size:
                continue
            if root == seen.root:
                self._found.known = max(size, self._found.known)
            else:
                self._found.problems.append(Problem(_forked(size)))
        seal = self._seals.get(size)
        if seal is None:
            return
        if root != seal.root:
            self._differs(seal)
            return
        self._found.seals += 1
        self._found.sealed = size
        self._last = seal
        self._check_signature(seal)

    def _differs(self, seal: Seal) -> None:
        """Name the events, as few as can be, among which one is not what was sealed."""
        self._broken = True
        low, high, before = 1, seal.last, 0
        for peak, sealed, size in zip(self._tree.peaks, seal.peaks, peak_sizes(seal.last), strict=True):
            if peak != sealed:
                low, high = before + 1, before + size
                break
            before += size
        low = max(low, self._found.sealed + 1)  # those in front are proved by the seal before
        when = f"after the seal at position {seal.position} was made"
        which = "it" if low == high else f"one of the events from {low} to {high}"
        what = f"{which}, or when it was recorded, was changed {when}"
        self._found.problems.append(Problem(what, low, until=high, seal=seal.position))

    def _check_signature(self, seal: Seal) -> None:
        if seal.signer is None:
            return
        text = seal.checkpoint(self._store.log_id).text()
        if not seal.signer.accepts(text, seal.signature or b""):
            self._say(f"the signature of this seal is not by {seal.signer.name}", seal)
            return
        if str(seal.signer) not in self._found.signers:
            self._found.signers.append(str(seal.signer))
        if not self._keys or seal.signer in self._keys:
            self._found.signed = seal.last

    def finish(self) -> None:
        """Say what is left to say at the end of the log."""
        found = self._found
        if self._broken:
            return
        beyond = [seen.size for seen in self._known if seen.size > self._tree.size]
        if beyond:
            found.problems.append(Problem(_rewound(self._tree.size, max(beyond))))
        missing = [size for size in self._sizes if size in self._seals]
        if missing:
            seal = self._seals[max(missing)]
            self._say(f"it seals {seal.last} events, but the log has {self._tree.size}", seal)
        last = self._last
        if last is not None and self._keys and (last.signer is None or last.signer not in self._keys):
            by = "nobody" if last.signer is None else str(last.signer)
            what = f"the last seal that holds, at position {last.position}, is signed by {by}, not by a key that counts"
            found.problems.append(Problem(what))


def _forked(size: int) -> str:
    return (
        f"the first {size} events are not those of the checkpoint that was seen before: the log was written anew, "
        "or is another one's fork"
    )


def _rewound(size: int, known: int) -> str:
    return f"the log has {size} events, but a checkpoint of {known} was seen before: its end was cut off"
