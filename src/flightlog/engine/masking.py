"""No secret in the log: what is known to be one is masked wherever text is about to be recorded."""

import re
import threading
from typing import Any

MASK = "********"
_SHORTEST = 6
_IN_URLS = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):([^\s@/]+)@")


class Masker:
    """Replaces known secrets in text. One for the whole process.

    It knows the values of pydantic's secret types that flows were given, the values of environment variables
    whose names speak of secrets (``..._TOKEN``, ``..._PASSWORD`` and the like), and passwords in URLs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secret: Any) -> None:
        """Remember a secret: a string, or one of pydantic's secret types."""
        if hasattr(secret, "get_secret_value"):
            secret = secret.get_secret_value()
        if isinstance(secret, bytes):
            secret = secret.decode("utf-8", "replace")
        if isinstance(secret, str) and len(secret) >= _SHORTEST:
            with self._lock:
                self._secrets.add(secret)
                # The longest first: a secret may begin with another one.
                longest = sorted(self._secrets, key=len, reverse=True)
                self._pattern = re.compile("|".join(map(re.escape, longest)))

    def mask(self, text: str) -> str:
        """Return the text with every known secret replaced."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _IN_URLS.sub(rf"\1:{MASK}@", text) if "://" in text else text


MASKER = Masker()
