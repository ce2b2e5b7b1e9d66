"""What a run was made of: code, packages, process. All that running it again needs."""

import hashlib
import platform
import sys
from functools import cache
from pathlib import Path


@cache
def _digests(path: str, _modified: int) -> tuple[bytes, str]:
    content = Path(path).read_bytes()
    return hashlib.sha256(content).digest(), hashlib.md5(content, usedforsecurity=False).hexdigest()


def source_digests(file: Path | None) -> tuple[bytes | None, str | None]:
    """Return a source file's SHA-256 (32 bytes) and its MD5 (hexadecimal, a flow's default version)."""
    try:
        return (None, None) if file is None else _digests(str(file), file.stat().st_mtime_ns)
    except OSError:
        return None, None


@cache
def packages() -> bytes:
    """Return the installed packages, one ``name==version`` a line, sorted.

    Read from the names of the metadata folders: opening every package's metadata takes a hundred times as long.
    """
    found = set()
    for folder in sys.path:
        try:
            names = [path.name for path in Path(folder or ".").iterdir()]
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                found.add(name.removesuffix(".dist-info").replace("-", "==", 1))
    return "\n".join(sorted(found)).encode()


def python_version() -> str:
    """Return the interpreter and its version, such as ``CPython 3.11.7``."""
    return f"{platform.python_implementation()} {platform.python_version()}"
