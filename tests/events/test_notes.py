"""Checkpoints as signed notes, as C2SP specifies them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.errors import LogKeyError
from flightlog.events.notes import (
    Checkpoint,
    NoteError,
    Signature,
    SigningKey,
    new_key,
    public_key,
    read_note,
    signing_key,
)

# The example key of https://pkg.go.dev/golang.org/x/mod/sumdb/note, and its signature of that text.
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)  # fmt: skip
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def test_keys_and_signatures_are_those_of_go() -> None:
    """Go's note package and ours read each other's keys, and accept each other's signatures."""
    key = signing_key(GO_PRIVATE, "here")
    assert str(key.public) == GO_PUBLIC
    assert str(public_key(GO_PUBLIC)) == GO_PUBLIC
    assert key.text() == GO_PRIVATE
    content = base64.b64decode(GO_SIGNATURE)
    assert content[:4] == key.public.hash
    assert content[4:] == key.sign(GO_TEXT)
    assert key.public.accepts(GO_TEXT, content[4:])
    assert not key.public.accepts(GO_TEXT + " ", content[4:])
    assert not key.public.accepts(GO_TEXT, content[5:])
    assert "AYEK" not in repr(key)


def test_a_checkpoint_is_written_as_specified() -> None:
    """Origin, size and head each on a line; an empty line; a signature line after a long dash."""
    checkpoint = Checkpoint("flightlog/x", 5, bytes(32))
    note = checkpoint.note(Signature("flightlog/x", b"\1\2\3\4", bytes(64)))
    lines = note.split("\n")
    assert lines[:4] == ["flightlog/x", "5", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""]
    assert lines[4].startswith("\u2014 flightlog/x AQIDBAAA")
    assert note.endswith("\n")
    assert read_note(note) == (checkpoint, [Signature("flightlog/x", b"\1\2\3\4", bytes(64))])
    assert read_note(checkpoint.note()) == (checkpoint, [])


GOOD = Checkpoint("a/b", 12, bytes(range(32))).note(Signature("a/b", b"\1\2\3\4", bytes(64)))


@pytest.mark.parametrize(
    "note",
    [
        "",
        "a/b\n12\n",
        GOOD.replace("12", "012"),
        GOOD.replace("12", "-1"),
        GOOD.replace("12", "\uff11\uff12"),
        GOOD.replace("AAEC", "AAE"),
        GOOD.replace("\u2014", "-"),
        GOOD.replace("a/b\n", "\n", 1),
        GOOD.replace("a/b ", "a+b "),
        GOOD[:-1],
        GOOD.replace("\n\n", "\nmore\n\n"),
        GOOD + "\n",
        GOOD + "\u2014 c AAAA\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(note: str) -> None:
    """Each departure from the form."""
    with pytest.raises(NoteError):
        read_note(note)


@given(st.integers(0, 2**62), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_is_read_as_it_was_written(size: int, root: bytes) -> None:
    """Any size and head."""
    key = new_key("flightlog/y")
    checkpoint = Checkpoint("flightlog/y", size, root)
    note = checkpoint.note(Signature("flightlog/y", key.public.hash, key.sign(checkpoint.text())))
    read, (signature,) = read_note(note)
    assert read == checkpoint
    assert public_key(str(key.public)).accepts(read.text(), signature.value)


@pytest.mark.parametrize(
    "text",
    ["", "a+b", GO_PUBLIC[:-1], GO_PUBLIC.replace("c74f20a3", "c74f20a4"), GO_PUBLIC.replace("ARpc", "Arpc"), "x"],
)
def test_a_damaged_verifier_key_is_refused(text: str) -> None:
    """By its form, or by its own hash."""
    with pytest.raises(LogKeyError):
        public_key(text)


@pytest.mark.parametrize("text", ["", "x", GO_PUBLIC, GO_PRIVATE[:-4], GO_PRIVATE.replace("c74f", "c74e")])
def test_a_damaged_signing_key_is_refused(text: str) -> None:
    """And the message has nothing of it."""
    with pytest.raises(LogKeyError, match=r"^The signing key here is damaged\.") as raised:
        signing_key(text, "here")
    assert len(text) < 2 or text not in str(raised.value)


def test_new_keys_differ() -> None:
    """Each is one of its own."""
    assert new_key("a") != new_key("a")
    assert isinstance(new_key("a"), SigningKey)
