"""Notifications as a plug-in, on the same hooks as anybody else's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flightlog.plugins.hooks import hookimpl

if TYPE_CHECKING:
    from flightlog.plugins.offers import Service


@hookimpl
def register_notifiers() -> Mapping[str, type[Any]]:
    """Offer Slack, e-mail and webhooks."""
    from flightlog.notifications.email import Email
    from flightlog.notifications.slack import SlackBot, SlackWebhook
    from flightlog.notifications.webhook import Webhook

    return {kind.kind: kind for kind in (SlackBot, SlackWebhook, Email, Webhook)}


@hookimpl
def register_services() -> "Mapping[str, type[Service]]":
    """Offer the service that folds rules and sends messages."""
    from flightlog.notifications.service import NotificationService

    return {"notifications": NotificationService}
