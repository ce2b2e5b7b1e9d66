"""Where in a TOML document each of its parts stands: the standard library's reader does not say.

The document is known to be valid, so what the grammar (https://toml.io/en/v1.0.0) forbids need not be looked for.
"""

import re
import tomllib
from collections.abc import Sequence
from typing import Final

Place = tuple[str | int, ...]
"""Keys and indexes, outermost first."""
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_DOT: Final = re.compile(r"[ \t]*\.[ \t]*")
_STRING: Final = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}(?!")|'{3}.*?'{3,5}(?!')|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''', re.DOTALL
)
_PLAIN: Final = re.compile(r"[^,\]}\n#]*")


def line_of(source: str, place: Sequence[str | int]) -> int:
    """Return the line of a TOML document that a place is at: that of the nearest part around it that is there.

    Args:
        source: the document.
        place: keys and indexes, outermost first.
    """
    offsets = _Scanner(source).offsets
    around = (tuple(place[:length]) for length in range(len(place), 0, -1))
    found = next((offsets[one] for one in around if one in offsets), 0)
    return source.count("\n", 0, found) + 1


class _Scanner:
    """Goes through a document once.

    Attributes:
        offsets: where each part begins.
    """

    def __init__(self, source: str) -> None:
        self.offsets: dict[Place, int] = {}
        self._source = source
        self._at = 0
        self._lengths: dict[Place, int] = {}
        table: Place = ()
        while self._skip() < len(source):
            if source[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _take(self, pattern: re.Pattern[str]) -> str:
        """Return what fits a pattern here, and go on behind it."""
        match = pattern.match(self._source, self._at)
        self._at = match.end() if match else self._at + 1
        return match[0] if match else ""

    def _skip(self) -> int:
        """Go to the next thing that is neither blank nor a comment; return where that is."""
        self._take(_BLANK)
        return self._at

    def _note(self, place: Place, offset: int) -> None:
        self.offsets.setdefault(place, offset)

    def _keys(self) -> list[str]:
        """Take a key: ``a``, or ``a."b".c``."""
        keys = [self._key()]
        while _DOT.match(self._source, self._at):
            self._take(_DOT)
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        raw = self._take(_KEY)
        return str(tomllib.loads(f"key = {raw}")["key"]) if raw[:1] in ("'", '"') else raw

    def _header(self) -> Place:
        """Take ``[a.b]`` or ``[[a.b]]``; return the table that begins."""
        begin, is_array = self._at, self._source.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        self._skip()
        keys = self._keys()
        self._skip()
        self._at += 2 if is_array else 1
        place: Place = ()
        for number, key in enumerate(keys, 1):
            place = (*place, key)
            if is_array and number == len(keys):
                self._lengths[place] = self._lengths.get(place, 0) + 1
            self._note(place, begin)
            if place in self._lengths:
                place = (*place, self._lengths[place] - 1)
                self._note(place, begin)
        return place

    def _pair(self, table: Place) -> None:
        """Take ``key = value``."""
        begin, place = self._at, table
        for key in self._keys():
            place = (*place, key)
            self._note(place, begin)
        self._skip()
        self._at += 1  # the equals sign
        self._skip()
        self._value(place)

    def _value(self, place: Place) -> None:
        first = self._source[self._at : self._at + 1]
        if first == "{":
            self._inside("}", place, is_array=False)
        elif first == "[":
            self._inside("]", place, is_array=True)
        else:
            self._take(_STRING if first in ("'", '"') else _PLAIN)

    def _inside(self, end: str, place: Place, *, is_array: bool) -> None:
        """Take an inline table or an array."""
        self._at += 1
        number = 0
        while self._skip() < len(self._source) and self._source[self._at] != end:
            if self._source[self._at] == ",":
                self._at += 1
            elif is_array:
                self._note((*place, number), self._at)
                self._value((*place, number))
                number += 1
            else:
                self._pair(place)
        self._at += 1
