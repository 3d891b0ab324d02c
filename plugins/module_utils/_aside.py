# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder set aside for a last look: nothing reaches it by its path any more, and it can still go back.

Private to this collection: may change without notice.

It stays in the same parent folder, so that the rename cannot fail for another file system and relative links in it
still lead where they did.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import _files, _mounts
from ._errors import EnvironmentFailure


@contextlib.contextmanager
def taken(path: str) -> t.Iterator[str]:
    """Set a folder aside, and put it back where the block fails; gives its new place.

    :raises UserError: something is mounted there.
    """
    _mounts.refuse(path)
    place = _place(path)
    _rename(path, place)
    try:
        yield place
    except BaseException:
        put_back(path)
        raise


def folder_of(path: str) -> str:
    """Where a folder lies: at its path, or where a killed run left it."""
    return _place(path) if not os.path.lexists(path) and os.path.isdir(_place(path)) else path


def put_back(path: str) -> None:
    """Put a folder back that was set aside, by this run or by a killed one; nothing where there is none.

    :raises EnvironmentFailure: there is something in its place by now.
    """
    place = _place(path)
    if not os.path.isdir(place):
        return
    if os.path.lexists(path):
        with contextlib.suppress(OSError):
            os.rmdir(path)  # an empty folder that some program made again
    _rename(place, path)


def _place(path: str) -> str:
    return _files.temporary_name(*os.path.split(path))


def _rename(here: str, there: str) -> None:
    if os.path.lexists(there):
        raise EnvironmentFailure(
            f"cannot move {here} to {there}: both exist",
            hint=f"compare the two, and move one of them away: diff -r {here} {there}",
        )
    try:
        os.rename(here, there)
    except OSError as error:
        raise EnvironmentFailure(f"cannot move {here} to {there}: {error.strerror}") from error
