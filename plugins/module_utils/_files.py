# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing files whole, and locks that leave no trace.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import typing as t

from ._errors import EnvironmentFailure

TEMPORARY = ".parallel-worktrees"
LITTLE = 64 << 10


def write(path: str, content: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    The temporary neighbour has a fixed name, so that a killed run leaves at most one, which the next overwrites.

    :arg owner: numbers of user and group; ourselves where it is not given.
    """
    folder, name = os.path.split(path)
    temporary = temporary_name(folder, name)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(handle, "wb") as file:
            os.fchmod(handle, mode)
            if owner is not None:
                os.fchown(handle, *owner)
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise EnvironmentFailure(f"cannot write {path}: {error.strerror}") from error


def umask() -> int:
    """What this process does not let new files have; it is not changed to be seen, as other threads make files."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))


def is_full(folder: str) -> bool:
    """Whether a folder's disk has no space left that a server could work with."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < LITTLE


def read(path: str) -> str:
    """The text of a file, as it is but for escaped bytes that are no UTF-8; none where there is no file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def rewrite(path: str, text: str) -> None:
    """Replace the text of a file, which keeps its mode."""
    mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o644
    write(path, text.encode("utf-8", "surrogateescape"), mode=mode)


def remove(path: str) -> None:
    """Take a file away where it is there, and what a killed run left beside it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sweep(path)


def sweep(path: str) -> None:
    """Take away what a killed run left beside a file."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary_name(*os.path.split(path)))


def is_locked(folder: str) -> bool:
    """Whether somebody holds the lock of a folder just now."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def temporary_name(folder: str, name: str) -> str:
    """Where a file or folder lies while it is being written."""
    return os.path.join(folder, f".{name}{TEMPORARY}")


def is_temporary(path: str) -> bool:
    """Whether a killed run may have left this."""
    return any(part.startswith(".") and part.endswith(TEMPORARY) for part in path.split("/"))


@contextlib.contextmanager
def locked(path: str, *, create: bool = True, shared: bool = False) -> t.Iterator[int]:
    """Hold the lock of a file or folder, exclusive or shared; it ends with the block, or with the process.

    A folder can be locked as it is; a file is made where ``create`` says so. The descriptor that carries the
    lock is given, for child processes that must keep it where they outlive us.
    """
    if os.path.isdir(path):
        flags = os.O_RDONLY | os.O_DIRECTORY
    else:
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
    try:
        handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFailure(f"cannot open {path} to lock it: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield handle
    except OSError as error:
        if error.errno != errno.ENOLCK:
            raise
        raise EnvironmentFailure(f"{path} lies on a file system without locks") from error
    finally:
        os.close(handle)
