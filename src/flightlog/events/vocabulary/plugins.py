"""What happens to a plug-in. The stream, ``plugin/<name>``, says to which."""

from pydantic import Field

from flightlog.events.vocabulary.parts import Payload


class PluginSkipped(Payload):
    """A plug-in cannot be used: it is broken, or made for another version. Recorded once for each reason."""

    plugin: str = Field(description="Its name.")
    version: str | None = Field(None, description="Its version.")
    problem: str = Field(description="Why it is not used.")


class PluginFailed(PluginSkipped):
    """A call into a plug-in failed. Of failures that follow each other fast, one is recorded, with their number."""

    hook: str = Field(description="The hook that was called.")
    took: int = Field(ge=0, description="How long the call took, in microseconds.")
    failures: int = Field(ge=1, description="How often the hook has failed in that process so far.")


MODELS: dict[str, type[Payload]] = {
    "plugin.skipped": PluginSkipped,
    "plugin.failed": PluginFailed,
    "plugin.switched_off": PluginFailed,
}
