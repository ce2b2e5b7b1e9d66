"""Checkpoints as signed notes: the text that C2SP specifies, so that tools of others can read and witness them.

See https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint. A checkpoint says how large a log is and which
Merkle tree head it has; a signature line says who says so.
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from flightlog.errors import LogKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ED25519: Final = 1
_PRIVATE: Final = "PRIVATE+KEY+"
_DASH: Final = "\u2014 "


class NoteError(ValueError):
    """The text is no checkpoint."""


class Signature(NamedTuple):
    """A signature line of a note: whose it is by name and key hash, and the signature."""

    name: str
    key_hash: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who signs: a name and an Ed25519 public key of 32 bytes."""

    name: str
    key: bytes

    @property
    def hash(self) -> bytes:
        """The four bytes that tell keys apart in signature lines."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([_ED25519]) + self.key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{_base64(bytes([_ED25519]) + self.key)}"

    def accepts(self, text: str, signature: bytes) -> bool:
        """Tell whether a signature of a text is by this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


def public_key(text: str) -> PublicKey:
    """Return the key that is written as C2SP has it: name, key hash and key, with ``+`` between them.

    Raises:
        LogKeyError: the text is no such key.
    """
    found = _parts(text.strip())
    if found is None:
        raise LogKeyError(
            f"{text.strip()[:60]!r} is no key of a signer. One is what `flightlog audit keygen` prints: NAME+HASH+KEY."
        )
    name, key_hash, key = found
    made = PublicKey(name, key)
    if made.hash != key_hash:
        raise LogKeyError(f"The key {text.strip()[:60]!r} is damaged: its hash is not the one of its name and key.")
    return made


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What signs: a name and an Ed25519 seed of 32 bytes."""

    name: str
    seed: bytes

    def __repr__(self) -> str:
        return f"SigningKey(name={self.name!r})"

    @property
    def public(self) -> PublicKey:
        """Who it is."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return PublicKey(self.name, self._key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, text: str) -> bytes:
        """Return the signature of a text."""
        return self._key().sign(text.encode())

    def text(self) -> str:
        """Return the key as it is kept in a file: as Go's note package has it."""
        return f"{_PRIVATE}{self.name}+{self.public.hash.hex()}+{_base64(bytes([_ED25519]) + self.seed)}"

    def _key(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)


def new_key(name: str) -> SigningKey:
    """Return a new key for somebody of that name."""
    return SigningKey(name, os.urandom(32))


def signing_key(text: str, where: str) -> SigningKey:
    """Return the signing key that is written as `SigningKey.text` has it.

    Args:
        text: the key.
        where: where it is from, for the message.

    Raises:
        LogKeyError: the text is no such key.
    """
    text = text.strip()
    found = _parts(text.removeprefix(_PRIVATE)) if text.startswith(_PRIVATE) else None
    if found is None or SigningKey(found[0], found[2]).public.hash != found[1]:
        raise LogKeyError(f"The signing key {where} is damaged. Put it back from a backup, or make a new one.")
    return SigningKey(found[0], found[2])


def _parts(text: str) -> tuple[str, bytes, bytes] | None:
    """Return name, key hash and key; None if the text has not that form."""
    # From the right in the name's favour, from the left in the key's: base64 has a plus sign too, names have none.
    name, _, rest = text.partition("+")
    key_hash, _, key = rest.partition("+")
    try:
        kind_and_key = base64.b64decode(key, validate=True)
        found = name, bytes.fromhex(key_hash), kind_and_key[1:]
    except (ValueError, binascii.Error):
        return None
    good = is_name(name) and len(key_hash) == 8 and len(kind_and_key) == 33 and kind_and_key[0] == _ED25519
    return found if good else None


def is_name(name: str) -> bool:
    """Tell whether a signer may have that name: no spaces and no plus signs."""
    return bool(name) and "+" not in name and not any(c.isspace() for c in name)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How large a log is, and which Merkle tree head it has.

    Attributes:
        origin: which log.
        size: how many events it has.
        root: the head of the tree over all of them.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return what is signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    def note(self, *signatures: Signature) -> str:
        """Return the checkpoint with its signatures, as a note."""
        lines = (f"{_DASH}{s.name} {_base64(s.key_hash + s.value)}\n" for s in signatures)
        return f"{self.text()}\n{''.join(lines)}"


def read_note(note: str) -> tuple[Checkpoint, list[Signature]]:
    """Return the checkpoint that a note holds, and its signatures, which are not verified here.

    Raises:
        NoteError: it is no checkpoint.
    """
    text, blank, rest = note.partition("\n\n")
    lines = text.split("\n")
    if not blank or len(lines) != 3 or not lines[0]:
        raise NoteError("a checkpoint has three lines (origin, size, head), an empty one, and signatures")
    origin, size, root = lines
    if not (size.isascii() and size.isdigit()) or str(int(size)) != size:
        raise NoteError(f"{size[:20]!r} is no size of a log")
    head = _unbase64(root)
    if head is None or len(head) != 32:
        raise NoteError(f"{root[:60]!r} is no tree head")
    return Checkpoint(origin, int(size), head), [_signature(line) for line in _lines(rest)]


def _lines(text: str) -> list[str]:
    if text and not text.endswith("\n"):
        raise NoteError("its last line does not end")
    return text.split("\n")[:-1]


def _signature(line: str) -> Signature:
    name, _, value = line.removeprefix(_DASH).partition(" ")
    found = _unbase64(value)
    if not line.startswith(_DASH) or not is_name(name) or found is None or len(found) < 5:
        raise NoteError(f"{line[:60]!r} is no signature")
    return Signature(name, found[:4], found[4:])


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _unbase64(text: str) -> bytes | None:
    """Return what a text stands for; None if it is not written in the one way there is."""
    try:
        content = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return content if _base64(content) == text else None
