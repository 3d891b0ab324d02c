# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping what this project writes out of git: in one worktree alone, or in all of a repository.

Private to this collection: may change without notice.

For one worktree: git has no ``info/exclude`` of it, but a ``core.excludesFile`` (gitignore(5)) can be set for it alone.
That hides the one that the user has for all of his repositories, so ours begins with the text of his, and every
provision brings that up to date. What either says is outranked by ``info/exclude`` and a project's own ``.gitignore``.

For a repository: a block of its own in the shared ``info/exclude``, for what lies in its main tree, such as the folder
of a worktree.

The caller holds the repository's lock.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from . import _files, _own_config
from ._git import Repository

BEGIN = "# parallel.worktrees: begin"
END = "# parallel.worktrees: end"

OWN = "parallel-worktrees-exclude"
"""The file with what git ignores in one worktree alone, in its private folder."""

_HEAD = """\
# Written by parallel.worktrees: what git ignores in this worktree alone, as its core.excludesFile.
# That hides the one that git would read here otherwise, so its text comes first. Edit it where it is, and the next
# provision takes it over: %s"""


def add(common: str, patterns: t.Iterable[str]) -> None:
    """See to it that the patterns are in the block of the whole repository."""
    path = _shared(common)
    _put(path, list(dict.fromkeys([*_split(path)[1], *patterns])))


def remove(common: str, pattern: str) -> None:
    """Take a pattern out of it."""
    path = _shared(common)
    _put(path, [line for line in _split(path)[1] if line != pattern])


def clear(common: str) -> None:
    """Take the block away, and what a killed run left beside it."""
    _put(_shared(common), [])
    _files.sweep(_shared(common))


def pattern_of(path: str) -> str:
    """The gitignore(5) pattern that means just this path, relative to the top of the working tree."""
    # A pattern is a line, so the end of a line in a name can only be told as "any one character".
    escaped = "".join("\\" + letter if letter in "\\*?[ " else letter for letter in path)
    return "/" + escaped.replace("\n", "?")


# --- of one worktree --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Renewal:
    """The file of one worktree, as git reads it now and as it is to be."""

    place: str
    before: str
    after: str

    @property
    def diff(self) -> dict[str, str]:
        return {
            "before_header": self.place,
            "after_header": self.place,
            "before": self.before,
            "after": self.after,
        }


def has_own(admin: str) -> bool:
    """Whether the worktree that has this private folder has such a file, which git reads."""
    admin = os.path.realpath(admin)
    return _own_config.holds(admin, "excludesFile", os.path.join(admin, OWN))


def add_own(repository: Repository, worktree: str, patterns: t.Iterable[str]) -> None:
    """Keep files out of git in one worktree."""
    admin = os.path.realpath(repository.admin_in(worktree))
    place = os.path.join(admin, OWN)
    before, block, _after = _split(place)
    is_read = has_own(admin)
    if not is_read:
        before, _counts = _theirs(repository, worktree, place)
    # A run that is killed leaves a temporary file at most, and that is nothing for git either.
    patterns = dict.fromkeys([*block, f".*{_files.TEMPORARY}", *patterns])
    _files.rewrite(place, _text([*before, BEGIN, *patterns, END]))
    if not is_read:
        _own_config.put(repository, admin, "excludesFile", place)


def renewal(repository: Repository, worktree: str) -> Renewal | None:
    """What is to be done where the user's own patterns are others by now, or ours do not count; None for nothing."""
    admin = os.path.realpath(repository.admin_in(worktree))
    place = os.path.join(admin, OWN)
    if not os.path.exists(place):
        return None
    theirs, counts = _theirs(repository, worktree, place)
    before, block, _after = _split(place)
    if counts and before == theirs:
        return None
    return Renewal(place, _files.read(place) if counts else "", _text([*theirs, BEGIN, *block, END]))


def renew(repository: Repository, todo: Renewal) -> None:
    """Carry it out."""
    _files.rewrite(todo.place, todo.after)
    _own_config.put(repository, os.path.dirname(todo.place), "excludesFile", todo.place)


def remove_own(repository: Repository, admin: str) -> None:
    """Leave a worktree with what git ignores there without us."""
    _own_config.take(repository, admin, "excludesFile")
    _files.remove(os.path.join(admin, OWN))


def _theirs(repository: Repository, worktree: str, place: str) -> tuple[list[str], bool]:
    """The lines that a worktree's file begins with, and whether git reads that file there."""
    option = "core.excludesFile"
    question = ("config", "-z", "--show-scope", "--type=path", "--get-all", option)
    asked = repository.git(*question, worktree=worktree)
    if asked.code not in (0, 1):
        raise asked.failure(f"asking git for the {option} of {worktree}")
    fields = asked.stdout.split("\0")
    # What is set for this one command, or in our own environment, is nothing that lasts.
    places = [path for scope, path in zip(fields[::2], fields[1::2], strict=False) if scope != "command"]
    # A file of ours in another place is what a repository that was moved has.
    theirs = [path for path in places if os.path.basename(path) != OWN]
    source = os.path.join(worktree, theirs[-1]) if theirs and theirs[-1] else "" if theirs else _usual()
    head = _HEAD % (source.replace("\n", "?") or "there is none")
    return [*head.split("\n"), *_lines(_content(source))], places[-1:] == [place]


def _usual() -> str:
    """Where git looks without any setting."""
    home = os.environ.get("HOME")
    folder = os.environ.get("XDG_CONFIG_HOME") or (home and os.path.join(home, ".config"))
    return os.path.join(folder, "git", "ignore") if folder else ""


def _content(path: str) -> str:
    """The text of a file as git takes it: one that it cannot read has none."""
    try:
        return _files.read(path).removeprefix("\ufeff") if path else ""
    except OSError:
        return ""


# --- files with a block of ours ---------------------------------------------------------------------------------


def _shared(common: str) -> str:
    return os.path.realpath(os.path.join(common, "info", "exclude"))


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _text(lines: t.Iterable[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _split(path: str) -> tuple[list[str], list[str], list[str]]:
    """The lines before our block, in it, and after it."""
    lines = _lines(_files.read(path))
    if BEGIN not in lines or END not in lines[lines.index(BEGIN) :]:
        return lines, [], []
    begin = lines.index(BEGIN)
    end = lines.index(END, begin)
    return lines[:begin], lines[begin + 1 : end], lines[end + 1 :]


def _put(path: str, block: list[str]) -> None:
    """Make this the block, where it is not."""
    before, former, after = _split(path)
    if block == former:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _files.rewrite(path, _text([*before, *([BEGIN, *block, END] if block else []), *after]))
