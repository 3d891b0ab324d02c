# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies that share their blocks with the original where the file system can (reflinks).

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import typing as t

from . import _commands, _files, _mounts


def copy(source: str, target: str, *, before: t.Callable[[str], None] | None = None) -> str:
    """Copy a file or folder with its times and modes, and return the way that was taken: ``reflink`` or ``copy``.

    The target appears in one step when its content is complete.

    :arg before: called with the complete copy before it appears.
    """
    partial = _files.temporary_name(*os.path.split(target))
    # cp --reflink=auto would never say which way it took (coreutils manual); =always tries each file of a folder
    # before it fails, so one file is tried for all.
    way = "reflink" if _clones(_a_file(source), partial) else "copy"
    done = _cp(source, partial, "always" if way == "reflink" else "never")
    if not done.ok and way == "reflink":
        way, done = "copy", _cp(source, partial, "never")
    if not done.ok:
        _mounts.remove(partial)
        raise done.failure(f"copying {source} to {target}")
    if before:
        before(partial)
    os.rename(partial, target)
    return way


def _a_file(source: str) -> str:
    """A file of a folder, to try; the source itself where it has none."""
    paths = (os.path.join(folder, name) for folder, _folders, files in os.walk(source) for name in files)
    return next((path for path in paths if _is_file(path)), source)


def _is_file(path: str) -> bool:
    """Whether it has content of its own, which a link has not: copying one shares nothing."""
    return os.path.isfile(path) and not os.path.islink(path)


def _clones(sample: str, partial: str) -> bool:
    return _is_file(sample) and _cp(sample, partial, "always").ok


def _cp(source: str, partial: str, reflink: str) -> _commands.Completed:
    _mounts.remove(partial)
    return _commands.run(("cp", "-a", f"--reflink={reflink}", "--", source, partial))


def make_way(path: str) -> None:
    """Remove a file, link or folder, if it is there; at no time is half of it in its place."""
    if os.path.lexists(path):
        _mounts.refuse(path)
        aside = _files.temporary_name(*os.path.split(path))
        _mounts.remove(aside)
        os.rename(path, aside)
        _mounts.remove(aside)
