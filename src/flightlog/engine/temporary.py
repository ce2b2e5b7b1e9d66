"""Settings that count for a while, such as for a test."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flightlog.engine.runtime import on_settings
from flightlog.errors import SettingsError
from flightlog.settings import PROFILE, SETTINGS, Setting, Settings, environment_with, in_names, load


@contextmanager
def temporary_settings(updates: Mapping[Setting | str, Any]) -> Iterator[Settings]:
    """Have some settings otherwise while this is open. Not for several threads at once.

    They are in the environment until then, so that processes that are started have them too. Flow runs that begin
    while this is open are recorded where the settings say; all else counts for those that are under way, too.

    Args:
        updates: values by setting, or by its name; None for one that is not set.

    Yields:
        Settings: the settings that count then.

    Raises:
        SettingsError: there is no such setting, it cannot have that value, or it cannot be changed at this time.

    Example:
        from flightlog.settings import FLIGHTLOG_TASK_DEFAULT_RETRIES, temporary_settings

        with temporary_settings({FLIGHTLOG_TASK_DEFAULT_RETRIES: 3}):
            my_flow()
    """
    texts = in_names(updates)
    fields = {setting.field for setting in SETTINGS if setting.name in texts}
    if fixed := [name for name in texts if name == PROFILE or name.startswith("FLIGHTLOG_PLUGIN")]:
        raise SettingsError(f"{fixed[0]} cannot be changed for a while: set it before the process starts.")
    with environment_with(texts):
        settings = load()
        with on_settings({field: getattr(settings, field) for field in fields}):
            yield settings


__all__ = ["temporary_settings"]
