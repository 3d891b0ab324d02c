# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing folders without reaching into what is mounted in them.

Private to this collection: may change without notice.

A bind mount has the device number of the file system it comes from, so neither ``rm --one-file-system`` nor a
comparison of ``st_dev`` sees it. The kernel's own list names every mount point, and the number of the mount that a
folder was opened in tells whether a mount came since the list was read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import stat
import typing as t

from ._errors import EnvironmentFailure, UserError

LIST = "/proc/self/mountinfo"

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def below(path: str) -> list[str]:
    """The mount points at a path and below it, the deepest first: the order in which they are unmounted.

    :raises EnvironmentFailure: the kernel's list cannot be read.
    """
    top = os.fsencode(_resolved(path))
    inside = {point for point in _points(path) if point == top or point.startswith(top.rstrip(b"/") + b"/")}
    return [os.fsdecode(point) for point in sorted(inside, key=lambda point: (-point.count(b"/"), point))]


def point_above(path: str) -> str:
    """The mount point of the file system that a path lies in, or would lie in.

    :raises EnvironmentFailure: the kernel's list cannot be read.
    """
    place = os.fsencode(os.path.realpath(path)) + b"/"
    return os.fsdecode(max((point for point in _points(path) if place.startswith(point.rstrip(b"/") + b"/")), key=len))


def _points(path: str) -> set[bytes]:
    try:
        with open(LIST, "rb") as file:
            return {_unescaped(line.split(b" ")[4]) for line in file}
    except OSError as error:
        raise EnvironmentFailure(f"cannot look for the mount points of {path}: {LIST}: {error.strerror}") from error


def refuse(path: str, *, own: bool = False) -> None:
    """Refuse to remove a file or folder that something is mounted on or in.

    :arg own: whether the path itself is a mount point that goes with it, as a dataset of ZFS is.
    :raises UserError: with the mount points and the command that unmounts them.
    """
    if points := [point for point in below(path) if not own or point != _resolved(path)]:
        raise _mounted(path, points)


def remove(path: str) -> None:
    """Remove a file, a link, or a folder with all that lies in it; nothing where the path does not exist.

    A folder that its owner may not write to is made writable; files keep their modes, as another hard link of a
    file may lie elsewhere. What cannot be removed does not keep the rest.

    :raises UserError: something is mounted there; nothing was removed, or nothing of the mount.
    :raises EnvironmentFailure: something is left.
    """
    refuse(path)
    folder, name = os.path.split(os.path.abspath(path))
    try:
        parent = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise EnvironmentFailure(f"cannot remove {path}: {error.strerror}") from error
    removal = _Removal()
    removal.run(_Level(parent, folder, [name]))
    if removal.mounts:
        raise _mounted(path, removal.mounts)
    if removal.left:
        (first, why), more = removal.left[0], len(removal.left) - 1
        raise EnvironmentFailure(
            f"cannot remove {first}: {why}" + (f", and {more} more below {path}" if more else ""),
            hint=f"remove it as a user who may, root for example: sudo rm -r {shlex.quote(path)}",
        )


@dataclasses.dataclass
class _Level:
    """An open folder with the entries that are still to be removed; it goes itself if all of them went."""

    handle: int
    path: str
    names: list[str]
    is_whole: bool = True


class _Removal:
    """One removal.

    :ivar left: what could not be removed, and why.
    :ivar mounts: mount points that came since the kernel's list was read.
    """

    def __init__(self) -> None:
        self.left: list[tuple[str, str]] = []
        self.mounts: list[str] = []
        self._mount: str | None = None

    def run(self, top: _Level) -> None:
        """Remove entries of a folder, depth first and without recursion; the folder is closed, and stays."""
        levels = [top]
        while levels:
            level = levels[-1]
            if level.names:
                name = level.names.pop()
                with self._noting(level, os.path.join(level.path, name)):
                    if inner := self._entry(level, name):
                        levels.append(inner)
                continue
            os.close(levels.pop().handle)
            if levels:
                with self._noting(levels[-1], level.path):
                    if level.is_whole:
                        os.rmdir(os.path.basename(level.path), dir_fd=levels[-1].handle)
                    else:
                        levels[-1].is_whole = False

    def _entry(self, level: _Level, name: str) -> _Level | None:
        """Remove an entry; of a folder, return what has to go first."""
        if not stat.S_ISDIR(os.lstat(name, dir_fd=level.handle).st_mode):
            os.unlink(name, dir_fd=level.handle)
            return None
        path, handle = os.path.join(level.path, name), os.open(name, os.O_PATH | _FOLDER, dir_fd=level.handle)
        try:
            mount = _mount_of(handle)
            self._mount = self._mount or mount
            if mount != self._mount:
                self.mounts.append(path)
                level.is_whole = False
                return None
            _make_writable(handle)
            readable = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=handle)
        finally:
            os.close(handle)
        return _Level(readable, path, os.listdir(readable))

    @contextlib.contextmanager
    def _noting(self, level: _Level, path: str) -> t.Iterator[None]:
        """Go on after what cannot be removed. What is gone already was removed by another call."""
        try:
            yield
        except FileNotFoundError:
            pass
        except OSError as error:
            level.is_whole = False
            self.left.append((path, error.strerror or str(error)))


def _make_writable(handle: int) -> None:
    """Let the owner of a folder list it and change it."""
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with contextlib.suppress(PermissionError):
            os.chmod(f"/proc/self/fd/{handle}", mode | stat.S_IRWXU)


def _mount_of(handle: int) -> str:
    """The number of the mount that an open file lies in (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{handle}", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith("mnt_id:"))


def _resolved(path: str) -> str:
    """A path as the kernel's list has it, the last part of which may be a link."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _mounted(path: str, points: t.Sequence[str]) -> UserError:
    return UserError(
        f"cannot remove {path}: something is mounted there, and it would be emptied: {', '.join(points)}",
        hint=f"unmount it first: umount {shlex.join(points)}",
        mounts=list(points),
    )


def _unescaped(text: bytes) -> bytes:
    """A path of the kernel's list, in which spaces and the like are octal numbers."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text)
