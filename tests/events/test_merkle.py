"""Merkle trees as RFC 9162 has them: the known vectors, and the laws."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.events import merkle

# The eight leaves, heads and proofs that implementations of RFC 6962 and RFC 9162 share (Certificate Transparency's
# own tests: `merkle_tree_test.cc`, and `transparency-dev/merkle` after it).
TEXTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
LEAVES = [bytes.fromhex(text) for text in TEXTS]
HEADS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [  # which leaf, of how many, proof
    (0, 1, []),
    (0, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
    (5, 8, ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (1, 5, ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"]),
]  # fmt: skip
CONSISTENCY = [  # how many leaves then, and now, proof
    (1, 1, []),
    (1, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
    (6, 8, ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
    (2, 5, ["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"]),
]  # fmt: skip
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]


def unhexed(texts: list[str]) -> list[bytes]:
    """Return hashes that are written in hexadecimal."""
    return [bytes.fromhex(text) for text in texts]


def naive(hashes: list[bytes]) -> bytes:
    """Return a tree's head by the definition in RFC 9162, 2.1.1, word for word."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + naive(hashes[:split]) + naive(hashes[split:])).digest()


def numbered(count: int) -> list[bytes]:
    """Return the hashes of so many leaves."""
    return [merkle.leaf_hash(str(number).encode()) for number in range(count)]


@pytest.mark.parametrize("size", range(9))
def test_heads_are_the_known_ones(size: int) -> None:
    """The heads of the first so many of the eight leaves are those that everybody computes."""
    assert merkle.root(HASHES[:size]).hex() == HEADS[size]
    frontier = merkle.Frontier()
    for leaf in HASHES[:size]:
        frontier.extend([leaf])
    assert frontier.root().hex() == HEADS[size]


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_are_the_known_ones(index: int, size: int, proof: list[str]) -> None:
    """They are made as known, and accepted."""
    assert merkle.inclusion_proof(HASHES[:size], index) == unhexed(proof)
    head = bytes.fromhex(HEADS[size])
    assert merkle.verify_inclusion(HASHES[index], index, size, unhexed(proof), head)


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCY)
def test_consistency_proofs_are_the_known_ones(first: int, second: int, proof: list[str]) -> None:
    """They are made as known, and accepted."""
    assert merkle.consistency_proof(HASHES[:second], first) == unhexed(proof)
    heads = bytes.fromhex(HEADS[first]), bytes.fromhex(HEADS[second])
    assert merkle.verify_consistency(first, second, unhexed(proof), *heads)


def damaged(proof: list[bytes]) -> list[list[bytes]]:
    """Return a proof with a hash changed, left out, doubled, added in front or behind."""
    found = [[*proof, bytes(32)], [bytes(32), *proof]]
    for number, step in enumerate(proof):
        before, after = proof[:number], proof[number + 1 :]
        found += [
            [*before, bytes([step[0] ^ 1]) + step[1:], *after],
            [*before, *after],
            [*before, step, step, *after],
        ]
    return found


@pytest.mark.parametrize("size", range(1, 18))
def test_wrong_inclusion_proofs_are_refused(size: int) -> None:
    """For each leaf: the proof holds for that leaf at that place in that tree, and for nothing else."""
    hashes, head = numbered(size), merkle.root(numbered(size))
    for index in range(size):
        proof = merkle.inclusion_proof(hashes, index)
        assert merkle.verify_inclusion(hashes[index], index, size, proof, head)
        for wrong in damaged(proof):
            assert not merkle.verify_inclusion(hashes[index], index, size, wrong, head)
        for other in (-1, size, size + 5, *(i for i in range(size) if i != index)):
            assert not merkle.verify_inclusion(hashes[index], other, size, proof, head)
        assert not merkle.verify_inclusion(bytes(32), index, size, proof, head)
        assert not merkle.verify_inclusion(hashes[index], index, size, proof, bytes(32))


@pytest.mark.parametrize("second", range(1, 18))
def test_wrong_consistency_proofs_are_refused(second: int) -> None:
    """For each earlier size: the proof holds between these two heads, and for nothing else."""
    hashes, head = numbered(second), merkle.root(numbered(second))
    for first in range(1, second + 1):
        proof, earlier = merkle.consistency_proof(hashes, first), merkle.root(hashes[:first])
        assert merkle.verify_consistency(first, second, proof, earlier, head)
        for wrong in damaged(proof):
            assert not merkle.verify_consistency(first, second, wrong, earlier, head)
        assert not merkle.verify_consistency(first, second, proof, bytes(32), head)
        assert not merkle.verify_consistency(first, second, proof, earlier, bytes(32))
        assert not merkle.verify_consistency(second + 1, second, proof, earlier, head)
        assert not merkle.verify_consistency(0, second, proof, earlier, head)


@given(st.integers(0, 300), st.lists(st.integers(0, 300), max_size=5))
def test_a_tree_that_grows_is_the_tree(size: int, cuts: list[int]) -> None:
    """However the leaves come, in one go or in parts, and taken up again from the peaks: the head is the same."""
    hashes = numbered(size)
    bounds = [0, *sorted(min(cut, size) for cut in cuts), size]
    frontier = merkle.Frontier()
    for start, end in pairwise(bounds):
        frontier = merkle.Frontier(frontier.size, frontier.peaks)
        frontier.extend(hashes[start:end])
        assert frontier.root() == naive(hashes[:end])
        assert len(frontier.peaks) == len(merkle.peak_sizes(end))
    assert frontier.size == size


@given(st.data())
def test_one_proof_does_for_many_leaves(data: st.DataObject) -> None:
    """Any choice of leaves and the heads of the missing parts give the tree's head; one hash changed gives another."""
    size = data.draw(st.integers(1, 120))
    chosen = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    hashes = numbered(size)
    parts = list(merkle.missing_parts(chosen, size))
    proof = [merkle.root(hashes[low:high]) for low, high in parts]
    leaves = {index: hashes[index] for index in chosen}
    head = merkle.root(hashes)
    assert merkle.root_from(leaves, size, proof) == head
    assert merkle.root_from(leaves, size, [*proof, bytes(32)]) is None
    if proof:
        assert merkle.root_from(leaves, size, proof[:-1]) is None
        number = data.draw(st.integers(0, len(proof) - 1))
        assert merkle.root_from(leaves, size, [*proof[:number], bytes(32), *proof[number + 1 :]]) != head
    if leaves:
        assert merkle.root_from(leaves | {chosen[0]: bytes(32)}, size, proof) != head
    assert merkle.root_from(leaves | {size: bytes(32)}, size, proof) is None


def test_what_makes_no_sense_is_refused() -> None:
    """A frontier of another size, a leaf that is not there, a tree that did not grow so."""
    with pytest.raises(ValueError, match="does not have 1 peaks"):
        merkle.Frontier(3, [bytes(32)])
    with pytest.raises(ValueError, match="has no leaf 8"):
        merkle.inclusion_proof(HASHES, 8)
    with pytest.raises(ValueError, match="did not grow out of one of 9"):
        merkle.consistency_proof(HASHES, 9)
    with pytest.raises(ValueError, match="not in order"):
        list(merkle.missing_parts([3, 2], 8))
    with pytest.raises(ValueError, match="has no leaf 8"):
        list(merkle.missing_parts([8], 8))
