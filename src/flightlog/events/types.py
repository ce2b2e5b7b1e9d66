"""The names of our event types, their schema versions, and the state that each one leads to.

A type's name is a subject and a past participle. This module imports nothing heavy: the hot path needs
these names, not the pydantic models behind them (`flightlog.events.vocabulary`).
"""

from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal

FLOW_RUN: Final = "flow_run"
TASK_RUN: Final = "task_run"
LOG_LINES: Final = "log.lines"
HOOK_ENDED: Final = "hook.ended"
ANSWERED: Final = "flow_run.answered"
ANSWER_REFUSED: Final = "flow_run.answer_refused"
INPUT_SENT: Final = "flow_run.input_sent"
CANCEL_REQUESTED: Final = "flow_run.cancel_requested"
CACHE_STORED: Final = "cache.stored"
CACHE_CLAIMED: Final = "cache.claimed"
CACHE_RELEASED: Final = "cache.released"
CACHE_DROPPED: Final = "cache.dropped"
TRANSACTION_COMMITTED: Final = "transaction.committed"
ARTIFACT_CREATED: Final = "artifact.created"
ARTIFACT_UPDATED: Final = "artifact.updated"
VARIABLE_SET: Final = "variable.set"
VARIABLE_UNSET: Final = "variable.unset"
EVENT_EMITTED: Final = "event.emitted"
BLOCK_SAVED: Final = "block.saved"
BLOCK_REENCRYPTED: Final = "block.reencrypted"
BLOCK_DELETED: Final = "block.deleted"
BLOCK_SECRETS_READ: Final = "block.secrets_read"
BLOCK_KEY_CHANGED: Final = "block_key.changed"
LIMIT_SET: Final = "concurrency_limit.set"
LIMIT_DELETED: Final = "concurrency_limit.deleted"
SLOTS_AWAITED: Final = "slots.awaited"
SLOTS_ACQUIRED: Final = "slots.acquired"
SLOTS_RELEASED: Final = "slots.released"
SLOTS_GIVEN_UP: Final = "slots.given_up"
SLOTS_EXPIRED: Final = "slots.expired"
RULE_SET: Final = "rule.set"
RULE_REMOVED: Final = "rule.removed"
CHANNEL_SET: Final = "channel.set"
CHANNEL_REMOVED: Final = "channel.removed"
ROUTES_SET: Final = "routes.set"
SILENCE_ADDED: Final = "silence.added"
SILENCE_ENDED: Final = "silence.ended"
INCIDENT_OPENED: Final = "incident.opened"
INCIDENT_UPDATED: Final = "incident.updated"
INCIDENT_RESOLVED: Final = "incident.resolved"
INCIDENT_ACKNOWLEDGED: Final = "incident.acknowledged"
NOTIFICATION_WITHHELD: Final = "notification.withheld"
NOTIFICATION_QUEUED: Final = "notification.queued"
NOTIFICATION_ATTEMPTED: Final = "notification.attempted"
NOTIFICATION_DELIVERED: Final = "notification.delivered"
NOTIFICATION_FAILED: Final = "notification.failed"
NOTIFICATION_DEAD: Final = "notification.dead"
NOTIFICATION_RETRIED: Final = "notification.retried"
PLUGIN_SKIPPED: Final = "plugin.skipped"
PLUGIN_FAILED: Final = "plugin.failed"
PLUGIN_LAGGED: Final = "plugin.lagged"
PLUGIN_SWITCHED_OFF: Final = "plugin.switched_off"
LOG_SEALED: Final = "log.sealed"
LOG_ARCHIVED: Final = "log.archived"
LOG_RESTORED: Final = "log.restored"
SUBJECTS_GROUPED: Final = "subjects.grouped"
SUBJECT_ERASED: Final = "subject.erased"
BLOCKS: Final = "block/"
"""How the name of every block's stream begins."""
BLOCK_KEY_STREAM: Final = "block-key"
"""The stream that says which key the secrets of blocks are encrypted with from when on."""
SEALS_STREAM: Final = "seals"
"""The stream of the log's seals."""
ARCHIVES_STREAM: Final = "archives"
"""The stream that says what left the log's database, and what came back."""
Cause = Literal["user_error", "timed_out", "lost_worker", "out_of_memory", "cancelled", "infrastructure"]
"""The classes of what goes wrong with an attempt."""

# suffix -> (state type, default state name). A run's event type is "<kind>.<suffix>".
STATES: Final[dict[str, tuple[str, str]]] = {
    "created": ("PENDING", "Pending"),
    "scheduled": ("SCHEDULED", "Scheduled"),
    "pending": ("PENDING", "Pending"),
    "not_ready": ("PENDING", "NotReady"),
    "running": ("RUNNING", "Running"),
    "awaiting_retry": ("SCHEDULED", "AwaitingRetry"),
    "paused": ("PAUSED", "Paused"),
    "resumed": ("RUNNING", "Running"),
    "cancelling": ("CANCELLING", "Cancelling"),
    "completed": ("COMPLETED", "Completed"),
    "rolled_back": ("COMPLETED", "RolledBack"),
    "failed": ("FAILED", "Failed"),
    "crashed": ("CRASHED", "Crashed"),
    "cancelled": ("CANCELLED", "Cancelled"),
}
TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

# Schema versions of what this version writes. A change of a payload's shape raises its number and
# brings an upcaster (flightlog.events.upcasting); a written event is never changed.
SCHEMAS: Final[dict[str, int]] = {
    **{f"{kind}.{suffix}": 1 for kind in (FLOW_RUN, TASK_RUN) for suffix in STATES},
    **dict.fromkeys(
        (LOG_LINES, HOOK_ENDED, ANSWERED, CANCEL_REQUESTED, INPUT_SENT, ANSWER_REFUSED, TRANSACTION_COMMITTED), 1
    ),
    **dict.fromkeys((CACHE_STORED, CACHE_CLAIMED, CACHE_RELEASED, CACHE_DROPPED), 1),
    **dict.fromkeys((LIMIT_SET, LIMIT_DELETED), 1),
    **dict.fromkeys((SLOTS_AWAITED, SLOTS_ACQUIRED, SLOTS_RELEASED, SLOTS_GIVEN_UP, SLOTS_EXPIRED), 1),
    **dict.fromkeys(
        (RULE_SET, RULE_REMOVED, CHANNEL_SET, CHANNEL_REMOVED, ROUTES_SET, SILENCE_ADDED, SILENCE_ENDED), 1
    ),
    **dict.fromkeys((INCIDENT_OPENED, INCIDENT_UPDATED, INCIDENT_RESOLVED, INCIDENT_ACKNOWLEDGED), 1),
    **dict.fromkeys((NOTIFICATION_WITHHELD, NOTIFICATION_QUEUED, NOTIFICATION_ATTEMPTED, NOTIFICATION_DELIVERED), 1),
    **dict.fromkeys((NOTIFICATION_FAILED, NOTIFICATION_DEAD, NOTIFICATION_RETRIED), 1),
    **dict.fromkeys((PLUGIN_SKIPPED, PLUGIN_FAILED, PLUGIN_LAGGED, PLUGIN_SWITCHED_OFF), 1),
    **dict.fromkeys((ARTIFACT_CREATED, ARTIFACT_UPDATED, VARIABLE_SET, VARIABLE_UNSET, EVENT_EMITTED), 1),
    **dict.fromkeys((BLOCK_SAVED, BLOCK_REENCRYPTED, BLOCK_DELETED, BLOCK_SECRETS_READ, BLOCK_KEY_CHANGED), 1),
    **dict.fromkeys((LOG_SEALED, LOG_ARCHIVED, LOG_RESTORED, SUBJECTS_GROUPED, SUBJECT_ERASED), 1),
}


def flow_run_stream(flow_run_id: str) -> str:
    """Return the name of the stream that holds a flow run and all its task runs."""
    return f"flow-run/{flow_run_id}"


def logs_stream(flow_run_id: str) -> str:
    """Return the name of the stream that holds a flow run's log lines."""
    return f"logs/{flow_run_id}"


@lru_cache(4096)
def flow_run_of(stream: str) -> bytes | None:
    """Return the flow run, 16 bytes, that a stream belongs to, or None if it is another kind of stream."""
    text = run_id_of(stream)
    try:
        return None if text is None else bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None


def cache_stream(digest: bytes) -> str:
    """Return the name of the stream of a cache key, which is known by its digest."""
    return f"cache/{digest.hex()}"


def artifact_stream(artifact_id: str) -> str:
    """Return the name of the stream of an artifact."""
    return f"artifact/{artifact_id}"


def transaction_stream(digest: str) -> str:
    """Return the name of the stream of a transaction with a key, which is known by its digest."""
    return f"transaction/{digest}"


def input_stream(flow_run_id: str) -> str:
    """Return the name of the stream of what is sent to a flow run."""
    return f"inputs/{flow_run_id}"


def variable_stream(name: str) -> str:
    """Return the name of the stream of a variable."""
    return f"variable/{name}"


def block_stream(place: str) -> str:
    """Return the name of the stream of a block, which is known by its type's slug and its name: ``secret/api-key``."""
    return f"{BLOCKS}{place}"


def emitted_stream(resource: str) -> str:
    """Return the name of the stream of what the user's code tells of a resource, which is known by its digest."""
    return f"emitted/{sha256(resource.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def limit_stream(name: str) -> str:
    """Return the name of the stream of a concurrency limit."""
    return f"concurrency-limit/{name}"


def rule_stream(name: str) -> str:
    """Return the name of the stream of a rule."""
    return f"rule/{name}"


def channel_stream(name: str) -> str:
    """Return the name of the stream of a channel."""
    return f"channel/{name}"


ROUTES_STREAM: Final = "routes/all"
"""The stream of the routing tree."""


def silence_stream(silence_id: str) -> str:
    """Return the name of the stream of a silence."""
    return f"silence/{silence_id}"


def incident_stream(incident_id: str) -> str:
    """Return the name of the stream of an incident."""
    return f"incident/{incident_id}"


def withheld_stream(rule: str) -> str:
    """Return the name of the stream of what a rule has matched and led to no incident."""
    return f"withheld/{rule}"


def notification_stream(key: str) -> str:
    """Return the name of the stream of a notification, which is known by its idempotency key."""
    return f"notification/{key}"


def plugin_stream(name: str) -> str:
    """Return the name of the stream of a plug-in."""
    return f"plugin/{name}"


def subject_stream(subject: bytes) -> str:
    """Return the name of the stream of somebody whose personal data is in the log, known by a digest."""
    return f"subject/{subject.hex()}"


def subjects_stream(group: bytes) -> str:
    """Return the name of the stream that says who belongs to a group of such subjects."""
    return f"subjects/{group.hex()}"


def run_id_of(stream: str) -> str | None:
    """Return the flow run's id that a stream's name carries, or None if it is another kind of stream."""
    kind, _, identifier = stream.partition("/")
    return identifier if kind in ("flow-run", "logs") else None
