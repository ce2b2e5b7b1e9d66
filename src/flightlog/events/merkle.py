"""Merkle trees as in RFC 9162, section 2.1: heads, proofs that a leaf is in one, proofs that one grew out of another.

Pure: hashes in, hashes out. Leaves are known by their hashes, so that nobody has to hold what they stand for.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

_sha256 = hashlib.sha256
EMPTY: Final = _sha256().digest()
"""The head of a tree without leaves."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of what is above two nodes."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows at its right end, known by its peaks: the heads of its complete parts, the largest first.

    That is all that is needed to go on with it: some 20 hashes for a million leaves.

    Args:
        size: how many leaves there are.
        peaks: its peaks.

    Raises:
        ValueError: a tree of that size has another number of peaks.
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if size < 0 or len(peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves does not have {len(peaks)} peaks")
        self.size = size
        rising = iter(reversed(peaks))
        self._levels = [next(rising) if size >> level & 1 else None for level in range(size.bit_length())]

    @property
    def peaks(self) -> list[bytes]:
        """The heads of the complete parts, the largest first."""
        return [peak for peak in reversed(self._levels) if peak is not None]

    def extend(self, hashes: Sequence[bytes]) -> None:
        """Add leaves: all at once, level by level, which is much faster than one by one."""
        self.size += len(hashes)
        carry = list(hashes)
        level = 0
        while carry:
            if level == len(self._levels):
                self._levels.append(None)
            waiting = self._levels[level]
            if waiting is not None:
                carry.insert(0, waiting)
            self._levels[level] = carry.pop() if len(carry) & 1 else None
            pairs = iter(carry)
            carry = [_sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            level += 1

    def root(self) -> bytes:
        """Return the tree's head."""
        return root_of(self.peaks)


def root_of(peaks: Sequence[bytes]) -> bytes:
    """Return the head of the tree that has these peaks."""
    if not peaks:
        return EMPTY
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def root(hashes: Sequence[bytes]) -> bytes:
    """Return the head of a tree by the hashes of its leaves."""
    frontier = Frontier()
    frontier.extend(hashes)
    return frontier.root()


def peak_sizes(size: int) -> list[int]:
    """Return how many leaves are below each peak of a tree, the largest first."""
    return [1 << level for level in reversed(range(size.bit_length())) if size >> level & 1]


def _split(size: int) -> int:
    """Return the largest power of two below a number above 1: how many leaves are left of the head."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the proof that a leaf is in a tree (RFC 9162, 2.1.3.1).

    Args:
        hashes: the hashes of all leaves.
        index: which leaf, from 0 on.
    """
    if not 0 <= index < len(hashes):
        raise ValueError(f"a tree of {len(hashes)} leaves has no leaf {index}")
    low, high = 0, len(hashes)
    proof: list[bytes] = []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(root(hashes[middle:high]))
            high = middle
        else:
            proof.append(root(hashes[low:middle]))
            low = middle
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], head: bytes) -> bool:
    """Tell whether a proof shows that a leaf is in a tree (RFC 9162, 2.1.3.2).

    Args:
        leaf: the hash of the leaf.
        index: which leaf, from 0 on.
        size: how many leaves the tree has.
        proof: the proof.
        head: the tree's head.
    """
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(step, found)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, step)
        node, last = node >> 1, last >> 1
    return last == 0 and found == head


def consistency_proof(hashes: Sequence[bytes], size: int) -> list[bytes]:
    """Return the proof that a tree grew out of its first leaves (RFC 9162, 2.1.4.1).

    Args:
        hashes: the hashes of all leaves.
        size: how many leaves it had then.
    """
    if not 0 < size <= len(hashes):
        raise ValueError(f"a tree of {len(hashes)} leaves did not grow out of one of {size}")
    low, high, whole = 0, len(hashes), True
    proof: list[bytes] = []
    while size != high - low:
        middle = low + _split(high - low)
        if size <= middle - low:
            proof.append(root(hashes[middle:high]))
            high = middle
        else:
            proof.append(root(hashes[low:middle]))
            size, low, whole = size - (middle - low), middle, False
    if not whole:
        proof.append(root(hashes[low:high]))
    return proof[::-1]


def verify_consistency(first: int, second: int, proof: Sequence[bytes], first_head: bytes, second_head: bytes) -> bool:
    """Tell whether a proof shows that one tree grew out of another one (RFC 9162, 2.1.4.2).

    Args:
        first: how many leaves the earlier one has.
        second: how many leaves the later one has.
        proof: the proof.
        first_head: the head of the earlier one.
        second_head: the head of the later one.
    """
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and first_head == second_head
    steps = list(proof) if first & (first - 1) else [first_head, *proof]
    if not steps:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    earlier = later = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            earlier, later = node_hash(step, earlier), node_hash(step, later)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            later = node_hash(later, step)
        node, last = node >> 1, last >> 1
    return last == 0 and earlier == first_head and later == second_head


# --- one proof for many leaves --------------------------------------------------------------------


def missing_parts(indices: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a tree that whoever has some of its leaves lacks, from left to right, each as large as can be.

    With the head of each part and the leaves, the tree's head can be computed: one proof for all of them.

    Args:
        indices: which leaves there are, rising.
        size: how many leaves the tree has.
    """
    if any(second <= first for first, second in pairwise(indices)) or (indices and indices[0] < 0):
        raise ValueError("the leaves are not in order")
    if indices and indices[-1] >= size:
        raise ValueError(f"a tree of {size} leaves has no leaf {indices[-1]}")
    open_ = [(0, size, 0, len(indices))] if size else []
    while open_:
        low, high, start, end = open_.pop()
        if start == end:
            yield low, high
        elif end - start < high - low:
            middle = low + _split(high - low)
            cut = _first_from(indices, middle, start, end)
            open_ += [(middle, high, cut, end), (low, middle, start, cut)]


def _first_from(indices: Sequence[int], index: int, start: int, end: int) -> int:
    from bisect import bisect_left

    return bisect_left(indices, index, start, end)


def root_from(leaves: Mapping[int, bytes], size: int, proof: Iterable[bytes]) -> bytes | None:
    """Return the head of a tree by some of its leaves and the heads of all `missing_parts`; None if these do not fit.

    Args:
        leaves: the hashes of the leaves that there are, by which leaf.
        size: how many leaves the tree has.
        proof: the heads of the missing parts, from left to right.
    """
    indices, steps = sorted(leaves), iter(proof)

    def head(low: int, high: int, start: int, end: int) -> bytes:
        if start == end:
            return next(steps)
        if high - low == 1:
            return leaves[low]
        middle = low + _split(high - low)
        cut = _first_from(indices, middle, start, end)
        return node_hash(head(low, middle, start, cut), head(middle, high, cut, end))

    if not size or (indices and not 0 <= indices[0] <= indices[-1] < size):
        return EMPTY if not size and not indices and next(steps, None) is None else None
    try:
        found = head(0, size, 0, len(indices))
    except StopIteration:
        return None
    return found if next(steps, None) is None else None
