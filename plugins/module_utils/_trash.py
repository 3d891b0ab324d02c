# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trash of a repository: folders leave their place in one step, and are removed in the background.

Private to this collection: may change without notice.

It lies in the common git directory. A folder of another file system stays beside its old place, and a note in the
trash says where. While a background removal works there, it holds a shared lock of the trash: what lies in an unlocked
trash could not be removed, or belongs to a run that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import subprocess
import sys
import typing as t

from . import _files, _mounts, _program
from ._errors import EnvironmentFailure, WorktreesError

FOLDER = "parallel-worktrees-trash"
ELSEWHERE = ".elsewhere"
"""The end of the name of a note, whose text is the place of a folder on another file system."""

TRIES = 10
LONGEST = 100
"""Characters of the old name that a folder keeps, for people who look into the trash."""


def throw_away(common: str, path: str, *, called: str | None = None) -> str:
    """Move a file or folder into the trash in one step; returns its new place.

    :arg common: the common git directory.
    :arg called: its name, if the path has another one by now.
    :raises UserError: something is mounted there.
    """
    _mounts.refuse(path)
    place = os.path.join(common, FOLDER, f"{(called or os.path.basename(path))[:LONGEST]}-{secrets.token_hex(8)}")
    try:
        for _number in range(TRIES):
            # A background removal may take the trash itself away in the same moment.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                return _move(path, place)
            os.lstat(path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise EnvironmentFailure(f"cannot move {path} aside: {error.strerror}") from error


def left(common: str) -> list[str]:
    """What lies in the trash and is not being removed now. The caller holds the repository's lock."""
    folder = os.path.join(common, FOLDER)
    try:
        if _files.is_locked(folder):
            return []
    except FileNotFoundError:
        return []
    return [place for place in map(_place, _entries(folder)) if os.path.lexists(place)]


def empty(common: str) -> None:
    """Remove what lies in the trash, here and now.

    :raises UserError: something is mounted there.
    :raises EnvironmentFailure: something cannot be removed.
    """
    for entry in _entries(os.path.join(common, FOLDER)):
        _remove(entry)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.join(common, FOLDER))


def is_stuck(folder: str) -> bool:
    """Whether this user cannot remove a folder: something is mounted in it, or another user owns a part of it."""
    if _mounts.below(folder):
        return True
    for path, folders, _names in os.walk(folder) if os.geteuid() else ():
        if any(_is_closed(os.path.join(path, name)) for name in folders):
            return True
    return False


def _is_closed(path: str) -> bool:
    """Whether a folder with something in it is not ours to empty."""
    about = os.lstat(path)
    if stat.S_ISLNK(about.st_mode) or about.st_uid == os.geteuid() or os.access(path, os.W_OK | os.X_OK):
        return False
    try:
        return bool(os.listdir(path))
    except PermissionError:
        return True


def discard(commons: t.Iterable[str]) -> None:
    """Remove what lies in the trash of repositories, in the background. The caller holds their locks."""
    folders = [folder for common in commons if _entries(folder := os.path.join(common, FOLDER))]
    if not folders:
        return
    with contextlib.ExitStack() as stack:
        locks = [stack.enter_context(_files.locked(folder, shared=True)) for folder in folders]
        program = stack.enter_context(os.fdopen(os.memfd_create(FOLDER), "wb"))
        program.write(_program.archive("_trash"))
        program.flush()
        subprocess.Popen(  # pylint: disable=ansible-bad-function # it outlives the call
            [sys.executable, "-I", "-S", f"/proc/self/fd/{program.fileno()}", *folders],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(*locks, program.fileno()),
        )


def main(folders: t.Sequence[str]) -> int:
    """The background removal: what it cannot remove stays, and ``left`` names it."""
    for folder in folders:
        for entry in _entries(folder):
            with contextlib.suppress(WorktreesError):
                _remove(entry)
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return 0


def _remove(entry: str) -> None:
    place = _place(entry)
    _mounts.remove(place)
    if place != entry:
        _files.remove(entry)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(place))  # in which a worktree lay, if nothing else does


def _entries(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except FileNotFoundError:
        return []


def _place(entry: str) -> str:
    """Where an entry of the trash really lies."""
    if not entry.endswith(ELSEWHERE):
        return entry
    place = _files.read(entry)
    # Only a name that this module makes: the note is a file that others could have written.
    return place if os.path.basename(place).startswith(f".{FOLDER}-") else entry


def _move(path: str, place: str) -> str:
    try:
        os.rename(path, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = os.path.join(os.path.dirname(path), f".{FOLDER}-{os.path.basename(place)}")
        with open(place + ELSEWHERE, "wb") as note:
            note.write(os.fsencode(beside))
        os.rename(path, beside)
        return beside
    return place
