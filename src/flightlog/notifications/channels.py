"""From a channel's configuration to its notifier: which kind, with which settings, and where its secrets come from."""

from collections.abc import Mapping
from typing import Any, Final

from flightlog.errors import FlightlogError
from flightlog.masking import MASKER
from flightlog.names import did_you_mean
from flightlog.notifications.notifier import Notifier
from flightlog.notifications.rules import Channel
from flightlog.settings import variable

_ENV: Final = "env:"


class ChannelError(FlightlogError):
    """A channel cannot be used as it is configured."""


def notifier_of(channel: Channel) -> Notifier:
    """Return the notifier of a channel.

    Raises:
        ChannelError: there is no such kind or block, or its settings do not fit.
    """
    if channel.block is not None:
        return _of_block(channel.name, channel.block)
    kind, known = channel.kind or "", kinds()
    if kind not in known:
        raise ChannelError(f"The channel {channel.name!r} is of a kind {kind!r}, which there is not."
                           f"{did_you_mean(kind, known)}")  # fmt: skip
    return _made(channel, known[kind])


def class_of(channel: Channel) -> type[Notifier] | None:
    """Return the notifier's class that a channel is of; None if it is not here."""
    if channel.block is None:
        return kinds().get(channel.kind or "")
    slug = channel.block.partition("/")[0]
    return next((kind for kind in kinds().values() if kind.kind == slug), None)


def secret_settings(channel: Channel) -> list[str]:
    """Return the settings of a channel that are secrets and stand there as they are."""
    kind = None if channel.block is not None else class_of(channel)
    if kind is None:
        return []
    secret = [name for name, field in kind.model_fields.items() if "Secret" in str(field.annotation)]
    return [name for name in secret if not _is_elsewhere(channel.settings.get(name, _ENV))]


def _is_elsewhere(value: Any) -> bool:
    """Tell whether a setting only says where its secrets are found."""
    if isinstance(value, Mapping):
        return all(_is_elsewhere(one) for one in value.values())
    if isinstance(value, list | tuple):
        return all(_is_elsewhere(one) for one in value)
    return str(value).startswith(_ENV)


def kinds() -> dict[str, type[Notifier]]:
    """Return the notifiers that there are, by kind: those of plug-ins, ours among them."""
    from flightlog.plugins.host import current_host

    return {kind: made for _, offers in current_host().all("register_notifiers") for kind, made in offers.items()}


def _made(channel: Channel, kind: type[Notifier]) -> Notifier:
    from pydantic import ValidationError

    try:
        return kind(**_resolved(channel.settings, channel.name))
    except ValidationError as error:
        problems = "; ".join(_problem(one, kind) for one in error.errors(include_url=False, include_input=False))
        raise ChannelError(
            f"The channel {channel.name!r} ({channel.kind}) is not configured rightly: {problems}."
        ) from None


def _problem(error: Any, kind: type[Notifier]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no setting {place!r}{did_you_mean(place, kind.model_fields)}"
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def _resolved(value: Any, channel: str) -> Any:
    """Return settings with what stands in the environment put in."""
    if isinstance(value, Mapping):
        return {key: _resolved(item, channel) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item, channel) for item in value]
    if not isinstance(value, str) or not value.startswith(_ENV):
        return value
    name = value.removeprefix(_ENV)
    if (found := variable(name)) is None:
        raise ChannelError(f"The channel {channel!r} needs the environment variable {name}, which is not set.")
    MASKER.learn(found)  # it may stand in what a channel answers
    return found


def _of_block(channel: str, place: str) -> Notifier:
    from flightlog.plugins.blocks import Block

    found = Block.load(place)
    if not isinstance(found, Notifier):
        raise ChannelError(f"The channel {channel!r} names the block {place!r}, which is no notifier.")
    return found
