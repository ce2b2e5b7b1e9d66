"""How blocks are kept: as events of a stream for each, with what is secret in them encrypted.

The log has the fields as JSON, masked, and beside them one Fernet token with all that is masked. Which key counts is
an event too. Whoever saves secrets appends on condition that the key is still the same, and keys are deleted only when
no block needs them any more: so a change of keys may be interrupted at any moment, and nothing is lost.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from flightlog.errors import BlockError, BlockKeyError, BlockNotFound, VersionConflict
from flightlog.events.log import Log
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import (
    BLOCK_DELETED,
    BLOCK_KEY_CHANGED,
    BLOCK_KEY_STREAM,
    BLOCK_REENCRYPTED,
    BLOCK_SAVED,
    BLOCK_SECRETS_READ,
    BLOCKS,
    block_stream,
)
from flightlog.names import did_you_mean
from flightlog.plugins.block_documents import Document, Hidden, needs_kept, with_kept
from flightlog.plugins.block_keys import BlockKeys
from flightlog.plugins.engine_port import EnginePort
from flightlog.projections.inline import inline_states

T = TypeVar("T")
_PROJECTION = "blocks"


class Stored(NamedTuple):
    """A block as it is kept.

    Attributes:
        document: its content.
        document_id: its id, 16 bytes.
        checksum: of its type's schema when it was saved.
        version: of its stream.
    """

    document: Document
    document_id: bytes
    checksum: str
    version: int


class Overtaken(Exception):
    """A block is not any more what a change of it is based on: look at it again."""


class Changed(NamedTuple):
    """What came of a change of keys.

    Attributes:
        reencrypted: how many blocks are encrypted with the new one.
        lost: those whose secrets could not be decrypted any more, as ``slug/name``.
    """

    reencrypted: int
    lost: list[str]


class BlockStore:
    """The blocks of one log.

    Args:
        engine: gives log, settings, clock and ids.
        keys: the keys; those that the settings tell of by default.
    """

    def __init__(self, engine: EnginePort, keys: BlockKeys | None = None) -> None:
        self._engine = engine
        self._keys = keys or BlockKeys(engine.log, engine.settings)

    # --- one block --------------------------------------------------------------------------------

    def save(
        self,
        place: str,
        document: Document,
        type_facts: Mapping[str, Any],
        *,
        overwrite: bool,
        actor: str,
        based_on: int | None = None,
    ) -> bytes:
        """Save a block; return its id, 16 bytes.

        Args:
            place: its type's slug and its name, as ``slug/name``.
            document: its content; where it is masked, what was saved before is kept.
            type_facts: what is put on record of its type: ``checksum``, ``capabilities``.
            overwrite: whether there may be one of that name already.
            actor: who does so.
            based_on: the version of its stream that the content was made of; None for any.

        Raises:
            Overtaken: somebody was first.
            BlockError: there is one already, or a mask stands where nothing was saved before.
            BlockKeyError: secrets cannot be encrypted.
        """
        stream = block_stream(place)

        def attempt() -> bytes:
            version, state = self._engine.kept(_PROJECTION, stream)
            if based_on not in (None, version):
                raise Overtaken
            if state is not None and not overwrite:
                raise BlockError(f"There is a block {place} already. To save another content: overwrite=True.")
            hidden = self._with_kept(document, state)
            told = {**_facts(place, document), **type_facts}
            told["document_id"] = self._engine.ids.new() if state is None else state["document_id"]
            sealed, key_part = self._sealed(hidden, actor)
            event = self._event(BLOCK_SAVED, {**told, **sealed}, actor)
            self._append(key_part, Append(stream, [event], version))
            document_id: bytes = told["document_id"]
            return document_id

        return self._settled(stream, attempt)

    def _with_kept(self, document: Document, state: Any) -> Mapping[str, Hidden]:
        """Return what is masked in a document; where that is the mask itself, what is saved there now."""
        if state is None:
            return with_kept(document, None, {})
        shown = json.loads(state["data"])
        # Who gives all secrets anew needs none of the old ones: their key may be lost.
        is_needed = needs_kept(document, shown, state.get("masked") or [])
        return with_kept(document, shown, self._opened(state) if is_needed else {})

    def load(self, place: str) -> Stored:
        """Return a block, its secrets decrypted.

        Raises:
            BlockNotFound: there is none of that name.
            BlockKeyError: its secrets cannot be decrypted.
        """

        def attempt() -> Stored:
            version, state = self._engine.kept(_PROJECTION, block_stream(place))
            if state is None:
                raise self._not_found(place)
            return Stored(document_of(state, self._opened(state)), state["document_id"], state["checksum"], version)

        return self._settled(block_stream(place), attempt)

    def delete(self, place: str, *, actor: str) -> None:
        """Delete a block.

        Raises:
            BlockNotFound: there is none of that name.
        """
        slug, _, name = place.partition("/")

        def attempt() -> None:
            version, state = self._engine.kept(_PROJECTION, block_stream(place))
            if state is None:
                raise self._not_found(place)
            event = self._event(BLOCK_DELETED, {"block_type": slug, "name": name}, actor)
            self._engine.log.append(block_stream(place), [event], expected_version=version)

        self._settled(block_stream(place), attempt)

    def read_secrets(self, place: str, *, actor: str) -> Stored:
        """Return a block for a person to see its secrets, once it is on record that they are seen. See `load`."""
        stored = self.load(place)
        slug, _, name = place.partition("/")
        told = {"block_type": slug, "name": name, "masked": sorted(stored.document.hidden)}
        self._engine.log.append(block_stream(place), [self._event(BLOCK_SECRETS_READ, told, actor)])
        return stored

    def _settled(self, stream: str, attempt: Callable[[], T]) -> T:
        """Return what an attempt gives that nobody has come in between of.

        Raises:
            BlockKeyError: a key is missing, and not because it was changed and deleted meanwhile.
        """
        while True:
            before = self._versions(stream)
            try:
                return attempt()
            except VersionConflict:
                continue
            except BlockKeyError:
                if self._versions(stream) == before:
                    raise

    def _versions(self, stream: str) -> list[int]:
        return [self._engine.kept(_PROJECTION, one).version for one in (BLOCK_KEY_STREAM, stream)]

    def _not_found(self, place: str) -> BlockNotFound:
        known = [stream.removeprefix(BLOCKS) for stream in self._engine.kept_states(_PROJECTION) if _is_block(stream)]
        return BlockNotFound(f"There is no block {place}.{did_you_mean(place, known) if known else ''}")

    def _event(self, type_: str, told: Mapping[str, Any], actor: str) -> NewEvent:
        return NewEvent(self._engine.ids.new(), type_, told, self._engine.clock.now(), actor=actor)

    # --- secrets ----------------------------------------------------------------------------------

    def _sealed(self, hidden: Mapping[str, Hidden], actor: str) -> tuple[dict[str, Any], list[Append]]:
        """Return what an event says of some secrets, and the condition that their key still counts."""
        if not hidden:
            return {}, []
        version, state = self._engine.kept(_PROJECTION, BLOCK_KEY_STREAM)
        if state is not None:
            return self._encrypted(hidden, state["key_id"]), [Append(BLOCK_KEY_STREAM, [], version)]
        key_id = self._keys.new()
        event = self._event(BLOCK_KEY_CHANGED, {"key_id": key_id}, actor)
        return self._encrypted(hidden, key_id), [Append(BLOCK_KEY_STREAM, [event], version)]

    def _encrypted(self, hidden: Mapping[str, Hidden], key_id: bytes) -> dict[str, Any]:
        from cryptography.fernet import Fernet

        token = Fernet(self._keys.get(key_id)).encrypt(json.dumps(hidden).encode())
        return {"secrets": token, "key_id": key_id, "masked": sorted(hidden)}

    def _opened(self, state: Mapping[str, Any]) -> dict[str, Hidden]:
        """Return what is masked in a block, by place."""
        if state.get("secrets") is None:
            return {}
        from cryptography.fernet import Fernet, InvalidToken

        try:
            text = Fernet(self._keys.get(state["key_id"])).decrypt(state["secrets"])
        except InvalidToken:
            place = f"{state['block_type']}/{state['name']}"
            raise BlockKeyError(f"The secrets of the block {place} are damaged: save them anew.") from None
        return {place: Hidden(*found) for place, found in json.loads(text).items()}

    def _append(self, key_part: list[Append], *parts: Append) -> None:
        """Append, on condition that the key is still the same; delete a key that was made if that is refused."""
        try:
            self._engine.log.append_all([*key_part, *parts])
        except VersionConflict:
            if not self._keys.are_given:
                self._keys.drop(event.data["key_id"] for part in key_part for event in part.events)
            raise

    # --- another key ------------------------------------------------------------------------------

    def change_key(self, *, actor: str, is_lost: bool = False) -> Changed:
        """Encrypt all secrets with another key, and delete the one before.

        Args:
            actor: who does so.
            is_lost: go on without the secrets whose key is missing, instead of refusing.

        Raises:
            BlockKeyError: the key before is missing, or the setting names no other one.
        """
        present = self._present_key()
        if present is None:
            return Changed(0, [])
        is_interrupted = self._keys.are_given and self._keys.new() == present and self._stale(present)
        if not is_interrupted:
            self._settled(BLOCK_KEY_STREAM, partial(self._switch_key, actor, is_lost=is_lost))
        count, lost = 0, set[str]()
        while stale := self._stale(present := self._present_key()) - lost:
            for stream in sorted(stale):
                try:
                    count += self._settled(stream, partial(self._reencrypt, stream, actor))
                except BlockKeyError:
                    if not is_lost:
                        raise
                    lost.add(stream)
        self._keys.drop(self._before(present))
        return Changed(count, sorted(stream.removeprefix(BLOCKS) for stream in lost))

    def _present_key(self) -> bytes | None:
        state = self._engine.kept(_PROJECTION, BLOCK_KEY_STREAM).state
        return None if state is None else state["key_id"]

    def _switch_key(self, actor: str, *, is_lost: bool) -> None:
        """Have another key count from now on."""
        version, state = self._engine.kept(_PROJECTION, BLOCK_KEY_STREAM)
        if not is_lost:
            self._keys.get(state["key_id"])  # who has lost it has to hear so before anything changes
        key_id = self._keys.new()
        if key_id == state["key_id"]:
            raise BlockKeyError(
                "FLIGHTLOG_BLOCKS_KEY names the present key only. Put a new one before it, with a comma between the "
                "two; when the key is changed, take the old one out."
            )
        event = self._event(BLOCK_KEY_CHANGED, {"key_id": key_id}, actor)
        self._append([Append(BLOCK_KEY_STREAM, [event], version)])

    def _before(self, present: bytes | None) -> set[bytes]:
        """Return the ids of the keys that counted before one; not of any that counts after it."""
        ids = [event.data["key_id"] for event in self._engine.log.read(BLOCK_KEY_STREAM)]
        last = max(number for number, key_id in enumerate(ids) if key_id == present)
        return set(ids[:last]) - {present}

    def _stale(self, present: bytes | None) -> set[str]:
        """Return the streams of the blocks whose secrets are not encrypted with a key."""
        states = self._engine.kept_states(_PROJECTION)
        return {s for s, state in states.items() if _is_block(s) and state.get("key_id") not in (None, present)}

    def _reencrypt(self, stream: str, actor: str) -> bool:
        """Encrypt a block's secrets with the key that counts; tell if they were not."""
        version, state = self._engine.kept(_PROJECTION, stream)
        if state is None or state.get("key_id") in (None, self._present_key()):
            return False
        sealed, key_part = self._sealed(self._opened(state), actor)
        del sealed["masked"]
        told = {**{name: state[name] for name in ("block_type", "name")}, **sealed}
        self._append(key_part, Append(stream, [self._event(BLOCK_REENCRYPTED, told, actor)], version))
        return True


def _facts(place: str, document: Document) -> dict[str, Any]:
    """Return what an event says of a document, but for its secrets."""
    slug, _, name = place.partition("/")
    told: dict[str, Any] = {
        "block_type": slug,
        "name": name,
        "data": json.dumps(document.shown, ensure_ascii=False),
    }
    if document.references:
        told["references"] = document.references
    if document.inline:
        told["inline"] = document.inline
    return told


def document_of(state: Mapping[str, Any], hidden: dict[str, Hidden] | None = None) -> Document:
    """Return a block's content from what the log keeps of it; without its secrets, unless these are given."""
    references, inline = (dict(state.get(name) or {}) for name in ("references", "inline"))
    return Document(json.loads(state["data"]), hidden or {}, references, inline)


def saved_blocks(log: Log) -> dict[str, dict[str, Any]]:
    """Return what the log keeps of all blocks, by ``slug/name``, sorted; without decrypting anything."""
    states = inline_states(log, _PROJECTION)
    return {stream.removeprefix(BLOCKS): state for stream, state in sorted(states.items()) if _is_block(stream)}


def _is_block(stream: str) -> bool:
    return stream.startswith(BLOCKS)
