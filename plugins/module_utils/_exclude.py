# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping what this project writes out of git: a block of its own in the repository's ``info/exclude``.

Private to this collection: may change without notice.

The caller holds the repository's lock.
"""

from __future__ import annotations

import os
import typing as t

from . import _files

BEGIN = "# parallel.worktrees: begin"
END = "# parallel.worktrees: end"


def add(common: str, patterns: t.Iterable[str]) -> None:
    """See to it that the patterns are in the block."""
    before, block, after = _split(common)
    wanted = list(dict.fromkeys([*block, *patterns]))
    if wanted != block:
        _store(common, [*before, BEGIN, *wanted, END, *after])


def clear(common: str) -> None:
    """Take the block away."""
    before, block, after = _split(common)
    if block:
        _store(common, [*before, *after])


def patterns(common: str) -> list[str]:
    return _split(common)[1]


def pattern_of(path: str) -> str:
    """The gitignore(5) pattern that means just this path, relative to the top of the working tree."""
    escaped = "".join("\\" + letter if letter in "\\*?[ " else letter for letter in path)
    return "/" + escaped


def _path(common: str) -> str:
    return os.path.join(common, "info", "exclude")


def _split(common: str) -> tuple[list[str], list[str], list[str]]:
    try:
        with open(_path(common), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    if BEGIN not in lines or END not in lines[lines.index(BEGIN) :]:
        return lines, [], []
    begin = lines.index(BEGIN)
    end = lines.index(END, begin)
    return lines[:begin], lines[begin + 1 : end], lines[end + 1 :]


def _store(common: str, lines: list[str]) -> None:
    os.makedirs(os.path.dirname(_path(common)), exist_ok=True)
    text = "".join(line + "\n" for line in lines)
    _files.write(_path(common), text.encode("utf-8", "surrogateescape"), mode=0o644)
