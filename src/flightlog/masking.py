"""No secret in the log: what is known to be one is masked wherever text is about to be recorded."""

import json
import re
import threading
from typing import Any

MASK = "********"
_SHORTEST = 6
_IN_URLS = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):([^\s@/]+)@")


class Masker:
    """Replaces known secrets in text. One for the whole process.

    It knows the values of pydantic's secret types that flows were given, the values of environment variables
    whose names speak of secrets (``..._TOKEN``, ``..._PASSWORD`` and the like), and passwords in URLs. Values shorter
    than six characters are not taken for secrets: they would be found everywhere.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._bytes: re.Pattern[bytes] | None = None

    def learn(self, secret: Any) -> None:
        """Remember a secret: a string, or one of pydantic's secret types."""
        if hasattr(secret, "get_secret_value"):
            secret = secret.get_secret_value()
        if isinstance(secret, bytes):
            secret = secret.decode("utf-8", "replace")
        if isinstance(secret, str) and len(secret) >= _SHORTEST:
            with self._lock:
                # As it stands, and as it looks in a repr and in JSON.
                forms = {
                    secret,
                    repr(secret)[1:-1],
                    json.dumps(secret)[1:-1],
                    json.dumps(secret, ensure_ascii=False)[1:-1],
                }
                if forms <= self._secrets:
                    return
                self._secrets |= forms
                # The longest first: a secret may begin with another one.
                longest = sorted(self._secrets, key=len, reverse=True)
                self._pattern = re.compile("|".join(map(re.escape, longest)))
                raw = (form.encode("utf-8", "surrogatepass") for form in longest)
                self._bytes = re.compile(b"|".join(map(re.escape, raw)))

    def is_in(self, content: bytes) -> bool:
        """Tell whether some bytes hold a known secret."""
        return self._bytes is not None and self._bytes.search(content) is not None

    def mask(self, text: str) -> str:
        """Return the text with every known secret replaced."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _IN_URLS.sub(rf"\1:{MASK}@", text) if "://" in text else text


MASKER = Masker()
