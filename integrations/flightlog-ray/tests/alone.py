"""Runs a program where there is no network but this machine's loopback: Ray listens on whatever address it finds.

``python alone.py -m pytest ...`` runs Python with these arguments so. Where that is not allowed, it says so and runs
nothing.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


def leave_the_network() -> None:
    """Have this process see a network of its own, with the loopback alone.

    Raises:
        OSError: that is not allowed here.
    """
    user, group = os.getuid(), os.getgid()
    spaces = _NEW_NETWORK if user == 0 else _NEW_NETWORK | _NEW_USER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(spaces) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if spaces & _NEW_USER:
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        (flags,) = struct.unpack("16xh", fcntl.ioctl(any_socket, _GET_FLAGS, request)[:18])
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", flags | _UP))


if __name__ == "__main__":
    try:
        leave_the_network()
    except (AttributeError, OSError) as error:
        sys.exit(print(f"Left out, since this needs a network namespace: {sys.argv[1:]}: {error}"))
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
