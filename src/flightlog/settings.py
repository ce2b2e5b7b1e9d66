"""The settings of a process: few, typed, read once at the edge.

Nothing else in the package reads the environment. `SETTINGS` is the one table that the reader, the
documentation and ``flightlog doctor`` share.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import flightlog.setting_values as values
from flightlog.errors import SettingsError
from flightlog.names import did_you_mean
from flightlog.profiles import as_text, read_profiles
from flightlog.setting_values import NOW_AND_THEN, Durability, SealPolicy

HOME: Final = "FLIGHTLOG_HOME"
PROFILE: Final = "FLIGHTLOG_PROFILE"
_CREDENTIALS = re.compile(
    r"(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|CREDENTIAL|PRIVATE_?KEY|(LOG|BLOCKS|AUDIT)_KEY)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process, as values.

    Attributes:
        home: the folder of all files that Flightlog keeps.
        log_url: where the log is, such as ``sqlite:////data/flightlog.db`` or ``memory://``.
        log_durability: ``commit`` survives the end of the process at any moment, ``fsync`` also the
            loss of power, and costs one disk sync per commit.
        log_key: the log's key as 64 hexadecimal digits; None to keep it in a file beside the database.
        log_seal: when a process that runs flows seals the log.
        audit_key: the key that signs seals; None to keep it in a file beside the database, or to sign none.
        blocks_key: the keys of the secrets in blocks, the newest first; none to keep them in files beside the database.
        retention_state: after how many seconds flow runs that are over leave the database, when it is archived.
        retention_telemetry: the same for their log lines.
        logging_level: the lowest level of log lines that are shown and recorded.
        logging_colors: colours on a terminal.
        logging_log_prints: record what flows and tasks print as log lines, unless they say otherwise.
        logging_format: ``text``, or ``json`` for one JSON document a line on the console.
        logging_extra_loggers: loggers of libraries whose lines are shown and recorded in runs.
        task_runner_max_workers: how many threads one flow run uses at the most.
        flow_default_retries: how often flows are tried again that do not say it themselves.
        flow_default_retry_delay_seconds: seconds before each of these retries; the last one goes for all that follow.
        task_default_retries: the same for tasks.
        task_default_retry_delay_seconds: the same for tasks.
        hooks_timeout_seconds: how long a hook may take; after that the run goes on without it.
        results_persist_by_default: record the values of runs that do not say otherwise.
        results_default_serializer: how values become bytes.
        results_default_storage: where values are kept, a folder or an fsspec URL; None for the log itself.
        tasks_refresh_cache: compute the values of cached tasks anew, where they do not say otherwise.
        cancel_grace_seconds: how long a cancelled flow waits for task runs that are under way in threads.
        plugins_mode: ``on``, ``strict`` (one that cannot be used is an error) or ``safe`` (only what comes with
            Flightlog).
        plugins_allow: the plug-ins that are used; empty for all.
        plugins_deny: plug-ins that are not used.
        plugins_folder: whether the files in ``./flightlog_plugins`` are plug-ins.
        plugins_timeout_seconds: how long one call into a plug-in may take.
    """

    home: Path
    log_url: str
    log_durability: Durability = "commit"
    log_key: str | None = None
    log_seal: SealPolicy = NOW_AND_THEN
    audit_key: str | None = None
    blocks_key: tuple[str, ...] = ()
    retention_state: float = 30 * 86_400.0
    retention_telemetry: float = 7 * 86_400.0
    logging_level: int = 20
    logging_colors: bool = True
    logging_log_prints: bool = False
    logging_format: str = "text"
    logging_extra_loggers: tuple[str, ...] = ()
    task_runner_max_workers: int = 32
    flow_default_retries: int = 0
    flow_default_retry_delay_seconds: tuple[float, ...] = (0.0,)
    task_default_retries: int = 0
    task_default_retry_delay_seconds: tuple[float, ...] = (0.0,)
    hooks_timeout_seconds: float = 30.0
    results_persist_by_default: bool = True
    results_default_serializer: str = "pickle"
    results_default_storage: str | None = None
    tasks_refresh_cache: bool = False
    cancel_grace_seconds: float = 5.0
    plugins_mode: str = "on"
    plugins_allow: tuple[str, ...] = ()
    plugins_deny: tuple[str, ...] = ()
    plugins_folder: bool = False
    plugins_timeout_seconds: float = 10.0

    def __repr__(self) -> str:
        url = re.sub(r"(//[^:/@]*):[^@]*@", r"\1:***@", self.log_url)
        return f"Settings(home={str(self.home)!r}, log_url={url!r}, log_durability={self.log_durability!r})"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings.

    Attributes:
        name: its name in the environment.
        default: its value where nobody says otherwise.
        help: what it does.
        field: the attribute of `Settings` that has it.
        read: makes the value of the text.
        is_secret: whether its value is shown to nobody.
    """

    name: str
    default: str
    help: str
    field: str
    read: Callable[[str], Any]
    is_secret: bool = False

    def value(self) -> Any:
        """Return its value, as it counts for flow runs that begin now."""
        return getattr(load(), self.field) if self.field else os.environ.get(self.name)


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("FLIGHTLOG_HOME", "~/.flightlog", "The folder of all files that Flightlog keeps.", "home", Path),
    Setting("FLIGHTLOG_PROFILE", "", "The profile whose settings count; the active one by default.", "", str),
    Setting(
        "FLIGHTLOG_LOG_URL",
        "sqlite:///{home}/flightlog.db",
        "Where the log is: `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user@host/database`, or "
        "`memory://` for none on disk.",
        "log_url",
        str,
    ),
    Setting(
        "FLIGHTLOG_LOG_DURABILITY",
        "commit",
        "`commit` survives the end of the process at any moment; `fsync` also the loss of power.",
        "log_durability",
        values.durability,
    ),
    Setting(
        "FLIGHTLOG_LOG_KEY",
        "",
        "The log's key, 64 hexadecimal digits, instead of the file beside the database.",
        "log_key",
        values.key,
        is_secret=True,
    ),
    Setting(
        "FLIGHTLOG_LOG_SEAL",
        "10000",
        "When a process that runs flows seals the log: `never`, or some of `exit` (when it lets go of the log), a "
        "number of events that no seal covers, and a time since the last seal, such as `exit,10000,300s`.",
        "log_seal",
        values.seal_policy,
    ),
    Setting(
        "FLIGHTLOG_AUDIT_KEY",
        "",
        "The key that signs seals, as `flightlog audit keygen` writes it, instead of the file beside the database.",
        "audit_key",
        str,
        is_secret=True,
    ),
    Setting(
        "FLIGHTLOG_BLOCKS_KEY",
        "",
        "The key of the secrets in blocks, 44 characters of URL-safe base64 (a Fernet key), instead of the file beside "
        "the database; several with commas, the newest first, to change it.",
        "blocks_key",
        values.fernet_keys,
        is_secret=True,
    ),
    Setting(
        "FLIGHTLOG_RETENTION_STATE",
        "30d",
        "How long flow runs that are over stay in the database: `flightlog log archive` moves them out after that.",
        "retention_state",
        values.span,
    ),
    Setting(
        "FLIGHTLOG_RETENTION_TELEMETRY",
        "7d",
        "How long the log lines of flow runs that are over stay in the database: `flightlog log archive` moves them "
        "out after that.",
        "retention_telemetry",
        values.span,
    ),
    Setting(
        "FLIGHTLOG_LOGGING_LEVEL",
        "INFO",
        "The lowest level of log lines that are shown and recorded.",
        "logging_level",
        values.level,
    ),
    Setting("FLIGHTLOG_LOGGING_COLORS", "true", "Colours on a terminal.", "logging_colors", values.boolean),
    Setting(
        "FLIGHTLOG_LOGGING_LOG_PRINTS",
        "false",
        "Record what flows and tasks print as log lines, unless they say otherwise.",
        "logging_log_prints",
        values.boolean,
    ),
    Setting(
        "FLIGHTLOG_LOGGING_FORMAT",
        "text",
        "`text`, or `json`: the console then has one JSON document a line, for programs that collect logs.",
        "logging_format",
        values.form,
    ),
    Setting(
        "FLIGHTLOG_LOGGING_EXTRA_LOGGERS",
        "",
        "Loggers of libraries, separated by commas, whose lines are shown and recorded with the run that they are in.",
        "logging_extra_loggers",
        values.names,
    ),
    Setting(
        "FLIGHTLOG_TASK_RUNNER_MAX_WORKERS",
        "32",
        "How many threads one flow run uses at the most.",
        "task_runner_max_workers",
        values.workers,
    ),
    Setting(
        "FLIGHTLOG_FLOW_DEFAULT_RETRIES",
        "0",
        "How often failed flow runs are tried again, where the flow does not say it.",
        "flow_default_retries",
        values.number,
    ),
    Setting(
        "FLIGHTLOG_FLOW_DEFAULT_RETRY_DELAY_SECONDS",
        "0",
        "Seconds before each retry of a flow run, where the flow does not say it: one number, or several with commas.",
        "flow_default_retry_delay_seconds",
        values.delays,
    ),
    Setting(
        "FLIGHTLOG_TASK_DEFAULT_RETRIES",
        "0",
        "How often failed task runs are tried again, where the task does not say it.",
        "task_default_retries",
        values.number,
    ),
    Setting(
        "FLIGHTLOG_TASK_DEFAULT_RETRY_DELAY_SECONDS",
        "0",
        "Seconds before each retry of a task run, where the task does not say it: one number, or several with commas.",
        "task_default_retry_delay_seconds",
        values.delays,
    ),
    Setting(
        "FLIGHTLOG_HOOKS_TIMEOUT_SECONDS",
        "30",
        "How long a state hook may take; after that the run goes on without it.",
        "hooks_timeout_seconds",
        values.seconds,
    ),
    Setting(
        "FLIGHTLOG_RESULTS_PERSIST_BY_DEFAULT",
        "true",
        "Record the values of flows and tasks that do not say `persist_result` themselves; a call whose value is not "
        "recorded runs again on resume.",
        "results_persist_by_default",
        values.boolean,
    ),
    Setting(
        "FLIGHTLOG_RESULTS_DEFAULT_SERIALIZER",
        "pickle",
        "How values become bytes: `pickle`, `json`, `compressed/pickle`, `compressed/json`, ...",
        "results_default_serializer",
        str,
    ),
    Setting(
        "FLIGHTLOG_RESULTS_DEFAULT_STORAGE",
        "",
        "Where values are kept: a folder, or an fsspec URL such as `s3://bucket/folder`; in the log by default.",
        "results_default_storage",
        str,
    ),
    Setting(
        "FLIGHTLOG_TASKS_REFRESH_CACHE",
        "false",
        "Compute the values of cached tasks anew, where these do not say `refresh_cache` themselves.",
        "tasks_refresh_cache",
        values.boolean,
    ),
    Setting(
        "FLIGHTLOG_CANCEL_GRACE_SECONDS",
        "5",
        "How long a cancelled flow waits for its task runs in threads to come to where they can be stopped.",
        "cancel_grace_seconds",
        values.seconds,
    ),
    Setting(
        "FLIGHTLOG_PLUGINS_MODE",
        "on",
        "`on`; `strict`: a plug-in that cannot be used is an error (for CI); `safe`: none but what comes with "
        "Flightlog.",
        "plugins_mode",
        values.mode,
    ),
    Setting(
        "FLIGHTLOG_PLUGINS_ALLOW",
        "",
        "The plug-ins that are used, separated by commas; all that are installed by default.",
        "plugins_allow",
        values.names,
    ),
    Setting(
        "FLIGHTLOG_PLUGINS_DENY",
        "",
        "Plug-ins that are not used, separated by commas.",
        "plugins_deny",
        values.names,
    ),
    Setting(
        "FLIGHTLOG_PLUGINS_FOLDER",
        "false",
        "Take the files in `./flightlog_plugins` for plug-ins: code of the working directory is then imported.",
        "plugins_folder",
        values.boolean,
    ),
    Setting(
        "FLIGHTLOG_PLUGINS_TIMEOUT_SECONDS",
        "10",
        "How long one call into a plug-in may take; one that takes longer is switched off for the process.",
        "plugins_timeout_seconds",
        values.seconds,
    ),
)
OF_PLUGINS: Final = "FLIGHTLOG_PLUGIN_"
"""What the names of plug-ins' own settings begin with; the plug-in's name follows."""


class Given(NamedTuple):
    """A setting as somebody has set it.

    Attributes:
        setting: the setting.
        raw: its value as text.
        source: who says so: ``environment``, ``profile NAME`` or ``default``.
    """

    setting: Setting
    raw: str
    source: str


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: from the environment (or the given mapping), else from the profile in use.

    Raises:
        SettingsError: a value cannot be used, or there is no such setting; the message names it and what it takes.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, Any] = {}
    for given in sources(environ):
        setting = given.setting
        if not given.raw or given.source == "default" or not setting.field:
            continue
        try:
            given.raw.encode()
            found[setting.field] = setting.read(given.raw)
        except UnicodeEncodeError:
            raise SettingsError(f"The setting {setting.name} is not in UTF-8.") from None
        except ValueError as error:
            shown = "its value" if setting.is_secret else repr(given.raw)
            place = "" if given.source == "environment" else f" (in the {given.source})"
            raise SettingsError(f"The setting {setting.name} cannot be {shown}{place}: {error}.") from None
    found["home"] = home = home_of(environ)
    found.setdefault("log_url", f"sqlite:///{home}/flightlog.db")
    return Settings(**found)


def home_of(environ: Mapping[str, str]) -> Path:
    """Return the folder of all files that Flightlog keeps.

    Raises:
        SettingsError: it is the home of a user that is not known here.
    """
    try:
        return Path(environ.get("FLIGHTLOG_HOME") or "~/.flightlog").expanduser().absolute()
    except RuntimeError:
        raise SettingsError("The setting FLIGHTLOG_HOME names the home of a user that is not known here.") from None


def sources(environ: Mapping[str, str] | None = None) -> list[Given]:
    """Return every setting with its value and who says so: environment before profile before default.

    Raises:
        SettingsError: the environment or the profile has a setting that there is not.
    """
    environ = os.environ if environ is None else environ
    check_names(environ, "the environment")
    profiles = read_profiles(home_of(environ))
    name = environ.get(PROFILE) or profiles.active
    profile = profiles.settings(name)
    check_names(profile, f"the profile {name!r}")
    found = []
    for setting in SETTINGS:
        if environ.get(setting.name):
            found.append(Given(setting, environ[setting.name], "environment"))
        elif setting.name in profile:
            found.append(Given(setting, profile[setting.name], f"profile {name}"))
        else:
            found.append(Given(setting, setting.default, "default"))
    return found


def plugin_settings(prefix: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what somebody has set under names with a prefix, without it: the environment counts before the profile.

    Args:
        prefix: `OF_PLUGINS`, or that with a plug-in's name.
        environ: the environment.
    """
    environ = os.environ if environ is None else environ
    profiles = read_profiles(home_of(environ))
    given = {**profiles.settings(environ.get(PROFILE) or profiles.active), **environ}
    return {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix) and value}


def check_names(names: Iterable[str], place: str) -> None:
    """Refuse settings that there are not.

    Raises:
        SettingsError: there is one; the message names the nearest.
    """
    known = [setting.name for setting in SETTINGS]
    in_environment = place == "the environment"
    for name in names:
        if not in_environment and name in (HOME, PROFILE):
            raise SettingsError(f"{name} can be set in the environment only, not in {place}.")
        ours = name.startswith("FLIGHTLOG_") and not name.startswith("FLIGHTLOG__RUNTIME__")
        if name in known or name.startswith(OF_PLUGINS) or (in_environment and not ours):
            continue
        hint = did_you_mean(name, known, else_say=" See `flightlog config view`.")
        raise SettingsError(f"{name}, in {place}, is no setting.{hint}")


def in_names(updates: Mapping["Setting | str", Any]) -> dict[str, str]:
    """Return settings and their values as the environment has them: text by name.

    Raises:
        SettingsError: there is no such setting.
    """
    given = {one.name if isinstance(one, Setting) else str(one): value for one, value in updates.items()}
    check_names(given, "temporary settings")
    return {name: "" if value is None else as_text(value) for name, value in given.items()}


@contextmanager
def environment_with(texts: Mapping[str, str]) -> Iterator[None]:
    """Have some settings in the environment while this is open, for this process and those that it starts."""
    before = {name: os.environ.get(name) for name in texts}
    os.environ.update(texts)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


def runtime_override(subject: str, fact: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return what the environment says in place of a fact of `flightlog.runtime`, or None."""
    environ = os.environ if environ is None else environ
    return environ.get(f"FLIGHTLOG__RUNTIME__{subject.upper()}__{fact.upper()}")


def variable(name: str) -> str | None:
    """Return a variable of the environment that a configuration names; None if it is not set."""
    return os.environ.get(name)


def credentials(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the values in the environment whose names speak of secrets; paths to key files are none."""
    environ = os.environ if environ is None else environ
    return [
        value for name, value in environ.items() if _CREDENTIALS.search(name) and not value.startswith(("/", "~", "."))
    ]


def __getattr__(name: str) -> Any:
    if name == "temporary_settings":
        return import_module("flightlog.engine.temporary").temporary_settings
    own, _, rest = name.partition("_")
    if own not in ("FLIGHTLOG", "PREFECT"):
        raise AttributeError(f"module 'flightlog.settings' has no attribute {name!r}")
    by_name = {setting.name: setting for setting in SETTINGS}
    if (setting := by_name.get(f"FLIGHTLOG_{rest}")) is not None:
        return setting
    hint = did_you_mean(f"FLIGHTLOG_{rest}", by_name, else_say=" `flightlog config view` shows all that there are.")
    if rest.startswith(("API_", "SERVER_", "UI_")):
        hint = " No server is needed: runs are recorded where FLIGHTLOG_LOG_URL says."
    # No AttributeError: of that Python would tell in its own words where the name is imported.
    raise ImportError(f"flightlog.settings has no {name!r}.{hint}")
