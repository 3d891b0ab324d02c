# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping what this project writes out of git: a block of its own in the repository's ``info/exclude``.

Private to this collection: may change without notice.

The caller holds the repository's lock.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from . import _files

BEGIN = "# parallel.worktrees: begin"
END = "# parallel.worktrees: end"


def add(common: str, patterns: t.Iterable[str]) -> None:
    """See to it that the patterns are in the block."""
    _put(common, list(dict.fromkeys([*_split(common)[1], *patterns])))


def remove(common: str, pattern: str) -> None:
    """Take a pattern out of the block."""
    _put(common, [line for line in _split(common)[1] if line != pattern])


def clear(common: str) -> None:
    """Take the block away, and what a killed run left beside it."""
    _put(common, [])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_files.temporary_name(*os.path.split(_path(common))))


def pattern_of(path: str) -> str:
    """The gitignore(5) pattern that means just this path, relative to the top of the working tree."""
    # A pattern is a line, so the end of a line in a name can only be told as "any one character".
    escaped = "".join("\\" + letter if letter in "\\*?[ " else letter for letter in path)
    return "/" + escaped.replace("\n", "?")


def _path(common: str) -> str:
    return os.path.realpath(os.path.join(common, "info", "exclude"))


def _split(common: str) -> tuple[list[str], list[str], list[str]]:
    """The lines before our block, in it, and after it."""
    try:
        with open(_path(common), encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = file.read().removesuffix("\n").split("\n")
    except FileNotFoundError:
        lines = []
    if BEGIN not in lines or END not in lines[lines.index(BEGIN) :]:
        return lines, [], []
    begin = lines.index(BEGIN)
    end = lines.index(END, begin)
    return lines[:begin], lines[begin + 1 : end], lines[end + 1 :]


def _put(common: str, block: list[str]) -> None:
    """Make this the block, where it is not."""
    before, former, after = _split(common)
    if block == former:
        return
    path = _path(common)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else 0o644
    lines = [*before, *([BEGIN, *block, END] if block else []), *after]
    _files.write(path, "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"), mode=mode)
