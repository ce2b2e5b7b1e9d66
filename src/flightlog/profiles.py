"""Profiles: named sets of settings in one TOML file, of which one is in use.

The file is ``profiles.toml`` in the folder of all that Flightlog keeps::

    active = "team"

    [profiles.team]
    FLIGHTLOG_LOG_URL = "postgresql://flightlog@db/flightlog"

It is read at every start, if it is there; only ``flightlog config`` and ``flightlog profile`` write it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flightlog.errors import SettingsError
from flightlog.names import did_you_mean

DEFAULT = "default"
FILE = "profiles.toml"


@dataclass(slots=True)
class Profiles:
    """What is in the file.

    Attributes:
        path: the file.
        active: the profile that is in use where nobody names another one.
        profiles: the settings of each, by name.
    """

    path: Path
    active: str = DEFAULT
    profiles: dict[str, dict[str, str]] = field(default_factory=lambda: {DEFAULT: {}})

    def settings(self, name: str | None = None) -> Mapping[str, str]:
        """Return the settings of a profile, or of the active one.

        Raises:
            SettingsError: there is none of that name.
        """
        chosen = name or self.active
        if chosen not in self.profiles:
            raise SettingsError(f"There is no profile {chosen!r} in {self.path}.{did_you_mean(chosen, self.profiles)}")
        return self.profiles[chosen]

    def write(self) -> None:
        """Write the file; what people have written in it besides stays."""
        import os

        import tomlkit

        document: Any = tomlkit.parse(self.path.read_text()) if self.path.exists() else tomlkit.document()
        document["active"] = self.active
        tables = document.setdefault("profiles", tomlkit.table(is_super_table=True))
        for name in [name for name in tables if name not in self.profiles]:
            del tables[name]
        for name, settings in self.profiles.items():
            table = tables.setdefault(name, tomlkit.table())
            for setting in [setting for setting in table if setting not in settings]:
                del table[setting]
            for setting, value in settings.items():
                if table.get(setting) != value:
                    table[setting] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{FILE}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it may hold passwords
        with os.fdopen(descriptor, "w") as file:
            file.write(tomlkit.dumps(document))
        partial.replace(self.path)


def read_profiles(home: Path) -> Profiles:
    """Read the file of profiles; without one there is an empty default profile.

    Args:
        home: the folder of all that Flightlog keeps.

    Raises:
        SettingsError: it is no TOML, or not of that shape; the message says where.
    """
    path = home / FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Profiles(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The profiles in {path} cannot be read: {error}.") from None
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The profiles in {path} are no TOML: {error}.") from None
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(settings, dict) for settings in profiles.values()):
        raise SettingsError(f"The profiles in {path} are tables: [profiles.NAME].")
    read = {
        str(name): {setting: as_text(value) for setting, value in settings.items()}
        for name, settings in profiles.items()
    }
    return Profiles(path, str(document.get("active", DEFAULT)), {DEFAULT: {}, **read})


def as_text(value: Any) -> str:
    """Return a setting's value as the environment has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
