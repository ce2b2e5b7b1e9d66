"""Whom a channel trusts: the system's certificates, or those of a file."""

import ssl
from pathlib import Path

from flightlog.notifications.notifier import DeliveryError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return what checks a server's certificate and name.

    Args:
        ca_file: certificates to trust instead of the system's; None for the system's.

    Raises:
        DeliveryError: the file cannot be read, or holds none.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or "it holds no certificate"
        raise DeliveryError(
            f"The certificates in {ca_file} cannot be read: {reason}.", is_final=True, code="ca_file"
        ) from None
