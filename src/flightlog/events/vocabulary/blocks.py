"""Blocks: configuration that is saved by name, its secrets encrypted. One stream for each, and one for their key."""

from typing import Annotated

from pydantic import Field

from flightlog.events.vocabulary.parts import Identifier, Payload

KeyId = Annotated[bytes, Field(min_length=8, max_length=8, description="The fingerprint of a key, 8 bytes.")]


class InBlock(Payload):
    """Something about a block."""

    block_type: str = Field(description="The slug of its type, such as `slack-webhook`.")
    name: str = Field(description="Its name, such as `ops`.")


class BlockSaved(InBlock):
    """A block was saved under its name, for the first time or with other content."""

    document_id: Identifier
    checksum: str = Field(description="The checksum of its type's schema then: `sha256:...`.")
    data: str = Field(description='Its fields as JSON: secrets masked, saved blocks in it as `{"$ref": ...}`.')
    capabilities: list[str] | None = Field(None, description="What blocks of the type can do, such as `notify`.")
    secrets: bytes | None = Field(None, description="What is masked, encrypted: a Fernet token.")
    key_id: KeyId | None = Field(None, description="The key that it is encrypted with.")
    masked: list[str] | None = Field(None, description="Where in the data something is masked: JSON pointers.")
    references: dict[str, str] | None = Field(None, description="The saved blocks in it, by JSON pointer.")
    inline: dict[str, str] | None = Field(None, description="The types of the other blocks in it, by JSON pointer.")


class BlockReencrypted(InBlock):
    """The secrets of a block were encrypted with another key; they are the same."""

    secrets: bytes = Field(description="What is masked, encrypted: a Fernet token.")
    key_id: KeyId


class BlockDeleted(InBlock):
    """A block was deleted."""


class BlockSecretsRead(InBlock):
    """Somebody was shown the secrets of a block."""

    masked: list[str] = Field(description="Where in the data these are: JSON pointers.")


class BlockKeyChanged(Payload):
    """From here on, secrets of blocks are encrypted with this key. The key itself is in no log."""

    key_id: KeyId


MODELS: dict[str, type[Payload]] = {
    "block.saved": BlockSaved,
    "block.reencrypted": BlockReencrypted,
    "block.deleted": BlockDeleted,
    "block.secrets_read": BlockSecretsRead,
    "block_key.changed": BlockKeyChanged,
}
