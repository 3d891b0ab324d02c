# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Path globs as languages: whether a path is in one, and whether two have a path in common.

Private to this collection: may change without notice.

A glob is read into a non-deterministic automaton over characters; two have a path in common where an end of
both can be reached together. So it does not matter which files there are today.

``*`` and ``?`` stand for characters of one name, ``[...]`` for one character of it, ``**`` as a whole name for any
number of names, also none. A glob that matches a folder matches all below it.
"""

from __future__ import annotations

import collections
import typing as t

from ._errors import UserError

Ranges = tuple[tuple[int, int], ...]
"""Characters as sorted, separate ranges of code points, both ends included."""

LAST = 0x10FFFF
SLASH: Ranges = ((ord("/"), ord("/")),)
HINT = "write it as git has paths, from the top of the repository: src/**/*.gleam"


def matches(glob: str, path: str) -> bool:
    """Whether a path, or a folder that it lies in, is meant by a glob."""
    return witness(_Automaton.of(glob), _Automaton.of_path(path)) is not None


def overlap(one: str, other: str) -> str | None:
    """A path that both globs mean, as short as there is; None where there can be none."""
    return witness(_Automaton.of(one), _Automaton.of(other))


def check(glob: str) -> None:
    """Refuse what is no glob of paths.

    :raises UserError: it is empty, leads out of the repository, or has a bracket that is not closed.
    """
    _Automaton.of(glob)


class _Automaton:
    """States are numbers, from 0; ``steps`` lead from one to the next by a character, ``free`` by none."""

    def __init__(self) -> None:
        self.steps: dict[int, list[tuple[Ranges, int]]] = {}
        self.free: dict[int, list[int]] = {}
        self.last = 0

    @classmethod
    def of(cls, glob: str) -> _Automaton:
        names = _names(glob)
        made = cls()
        for number, name in enumerate(names):
            is_last = number == len(names) - 1
            if name == "**":
                made.any_names(is_last=is_last)
                continue
            if set(name) == {"*"}:
                made.step(_NAME)
            for letters, is_repeated in _letters(name, glob):
                made.repeat(letters) if is_repeated else made.step(letters)
            if not is_last:
                made.step(SLASH)
        # All below it.
        end = made.last
        made.step(SLASH)
        made.step(_NAME)
        made.repeat(_ANY)
        made.free.setdefault(end, []).append(made.last)
        return made

    @classmethod
    def of_path(cls, path: str) -> _Automaton:
        made = cls()
        for letter in path:
            made.step(((ord(letter), ord(letter)),))
        return made

    def step(self, letters: Ranges) -> None:
        self.steps.setdefault(self.last, []).append((letters, self.last + 1))
        self.last += 1

    def repeat(self, letters: Ranges) -> None:
        """Any number of characters, also none."""
        self.steps.setdefault(self.last, []).append((letters, self.last))
        self.free.setdefault(self.last, []).append(self.last + 1)
        self.last += 1

    def any_names(self, *, is_last: bool) -> None:
        """Any number of names: each with a slash behind it, or at the end one at least."""
        begin = self.last
        self.step(_NAME)
        self.repeat(_NAME)
        if is_last:
            return  # what is below it follows anyway
        inner = self.last
        self.steps.setdefault(inner, []).append((SLASH, begin))
        self.last += 1
        self.free.setdefault(begin, []).append(self.last)

    def reached(self, states: t.Iterable[int]) -> frozenset[int]:
        found = set()
        pending = list(states)
        while pending:
            state = pending.pop()
            if state not in found:
                found.add(state)
                pending += self.free.get(state, [])
        return frozenset(found)


def witness(one: _Automaton, other: _Automaton) -> str | None:
    """The shortest text that both accept; pairs of states are gone through, breadth first."""
    seen: dict[tuple[int, int], str] = {}
    pending: collections.deque[tuple[int, int]] = collections.deque()

    def reach(left: int, right: int, text: str) -> None:
        for pair in ((a, b) for a in one.reached([left]) for b in other.reached([right])):
            if pair not in seen:
                seen[pair] = text
                pending.append(pair)

    reach(0, 0, "")
    while pending:
        left, right = pending.popleft()
        text = seen[left, right]
        if (left, right) == (one.last, other.last):
            return text
        for letters, onward in one.steps.get(left, []):
            for others, further in other.steps.get(right, []):
                if common := _common(letters, others):
                    reach(onward, further, text + _readable(common))
    return None


def _names(glob: str) -> list[str]:
    """The names that a glob has between its slashes."""
    text = glob.removesuffix("/")
    names = text.split("/")
    if not text or glob.startswith("/") or "" in names or {".", ".."} & set(names) or "\0" in text:
        raise UserError(f"{glob!r} is no glob of paths in a repository", hint=HINT)
    # One after another they mean no more than one.
    return [name for number, name in enumerate(names) if not (name == "**" and number and names[number - 1] == "**")]


def _letters(name: str, glob: str) -> t.Iterator[tuple[Ranges, bool]]:
    """What each part of a name stands for: characters, and whether any number of them."""
    place = 0
    while place < len(name):
        letter = name[place]
        place += 1
        if letter == "*":
            yield _NAME, True
        elif letter == "?":
            yield _NAME, False
        elif letter == "[":
            letters, place = _bracket(name, place, glob)
            yield letters, False
        else:
            if letter == "\\":
                if place == len(name):
                    raise UserError(f"{glob!r} ends a name with a backslash", hint=HINT)
                letter = name[place]
                place += 1
            yield ((ord(letter), ord(letter)),), False


def _bracket(name: str, place: int, glob: str) -> tuple[Ranges, int]:
    """The characters of a bracket that begins here, and where it has ended (fnmatch(3), glob(7))."""
    wrong = UserError(f"{glob!r} has a bracket that is not closed, or empty, or names a class", hint=HINT)
    is_negated = name[place : place + 1] in ("!", "^")
    place += is_negated
    found: list[tuple[int, int]] = []
    begin = place
    while place < len(name) and (name[place] != "]" or place == begin):
        if name[place] == "[" and name[place + 1 : place + 2] in (":", ".", "="):
            raise wrong
        low, place = _one(name, place, wrong)
        high = low
        if name[place : place + 1] == "-" and name[place + 1 : place + 2] not in ("]", ""):
            high, place = _one(name, place + 1, wrong)
        if low <= high:
            found.append((low, high))
    if place >= len(name):
        raise wrong
    letters = _common(_without(_joined(found)) if is_negated else _joined(found), _NAME)
    if not letters:
        raise wrong
    return letters, place + 1


def _one(name: str, place: int, wrong: UserError) -> tuple[int, int]:
    """A character of a bracket, and the place behind it."""
    if name[place] == "\\":
        place += 1
    if place >= len(name):
        raise wrong
    return ord(name[place]), place + 1


def _joined(ranges: t.Iterable[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def _without(ranges: Ranges) -> Ranges:
    """All characters but these."""
    lows = [0, *(high + 1 for _low, high in ranges)]
    highs = [*(low - 1 for low, _high in ranges), LAST]
    return tuple((low, high) for low, high in zip(lows, highs, strict=True) if low <= high)


def _common(one: Ranges, other: Ranges) -> Ranges:
    pairs = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return tuple((low, high) for low, high in pairs if low <= high)


def _readable(letters: Ranges) -> str:
    """A character of a set, one that people type where there is one."""
    for wanted in (ord("a"), ord("b"), ord("0"), ord("_")):
        if any(low <= wanted <= high for low, high in letters):
            return chr(wanted)
    low, high = letters[-1]
    return chr(max(low, min(high, ord("!"))))


_ANY: Ranges = ((1, LAST),)
_NAME: Ranges = _common(_without(SLASH), _ANY)
