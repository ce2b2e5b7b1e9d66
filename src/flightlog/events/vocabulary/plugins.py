"""What happens to a plug-in. The stream, ``plugin/<name>``, says to which."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Payload


class PluginSkipped(Payload):
    """A plug-in cannot be used: it is broken, or made for another version. Recorded once for each reason."""

    plugin: str = Field(description="Its name.")
    version: str | None = Field(None, description="Its version.")
    problem: str = Field(description="Why it is not used.")


class PluginLagged(PluginSkipped):
    """A plug-in is slow: a call took more than a second, or events were left out since it did not keep up.

    Of several in one minute, one is recorded.
    """

    hook: str = Field(description="The hook that was called.")
    took: int = Field(ge=0, description="How long the call took, in microseconds.")


class PluginFailed(PluginLagged):
    """A call into a plug-in failed. Of several in one minute, one is recorded, with how many there were so far."""

    failures: int = Field(ge=1, description="How often the hook has failed in that process so far.")


MODELS: dict[str, type[Payload]] = {
    "plugin.skipped": PluginSkipped,
    "plugin.failed": PluginFailed,
    "plugin.lagged": PluginLagged,
    "plugin.switched_off": PluginFailed,
}
