"""Which kind of file system a path is on, as far as the machine tells."""

from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset(
    [
        *(
            "nfs",
            "nfs4",
            "cifs",
            "smb3",
            "smbfs",
            "9p",
            "ceph",
            "glusterfs",
            "lustre",
            "afs",
            "ncpfs",
            "beegfs",
            "gpfs",
        ),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "drvfs"),
    ]
)


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """Return the kind of network file system that a path is on (``nfs4``, say); None for a local one.

    Args:
        path: the path; it need not exist.
        mounts: a mount table in the form of ``/proc/self/mountinfo`` (proc(5)); by default this machine's.
            Where there is none (macOS, Windows) every path counts as local.
    """
    if mounts is None:
        if not _MOUNTS.exists():
            return None
        mounts = _MOUNTS.read_text(errors="replace")
    target = path.absolute().resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split(" ")[4].replace("\\040", " "))
        # The last line wins among equals: it is mounted on top.
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split(" ")[0]
    return kind if kind in _NETWORK else None
