# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workspace says, held against what the roles document.

Private to this collection: may change without notice.

It is held against it before a task has a record or anything else, so a value that follows from a task's facts cannot be
told yet. Such a one passes here; the module that takes it looks at it again.
"""

from __future__ import annotations

import collections.abc as c
import difflib
import re
import typing as t

Options = t.Mapping[str, t.Any]
"""Options as an argument spec has them, by their names."""
Resolve = t.Callable[[t.Any], t.Any]
"""The value that a template stands for; raises ``NotYet``."""

BOOLEANS = {"y", "yes", "on", "1", "true", "t", "n", "no", "off", "0", "false", "f"}


class NotYet(Exception):
    """A value cannot be told yet."""


def faults(options: Options, given: t.Mapping[str, t.Any], resolve: Resolve, where: str = "") -> c.Iterator[str]:
    """What is wrong with the values that are given for options: a line each.

    :arg where: the place of these options, as in ``env_files[0].``.
    """
    for name in given if where else ():
        if name not in options:
            yield f"{where}{name}: nothing reads it{meant(str(name), options)}"
    for name, about in options.items():
        value = given.get(name)
        if value is not None:
            yield from _faults(about, value, resolve, where + name)
        elif about.get("required"):
            yield f"{where}{name} is missing"


def strays(documented: c.Collection[str], given: t.Iterable[str], typed: t.Iterable[str] = ()) -> list[str]:
    """What looks like a variable of the roles and is none, mostly for a slip of the finger.

    :arg typed: the names on the command line, where an option of a verb may be misspelt as well.
    """
    short = [name for name in documented if "_" not in name]
    return [
        f"{name} is no variable of this collection{close}"
        for name in sorted(set(typed) - set(documented))
        if "_" not in name and (close := meant(name, short, cutoff=0.75))
    ] + [
        f"{name} is no variable of this collection{close}"
        for name in sorted(set(given) - set(documented))
        if re.fullmatch(r"[a-z]+(_[a-z]+)+", name) and (close := meant(name, documented, cutoff=0.85))
    ]


def unknown(documented: t.Mapping[str, str], given: t.Iterable[str]) -> list[str]:
    """The names in a workspace file that begin as the variables of a role do, and are none of them: a line each.

    :arg documented: the role of each variable.
    """
    prefixes = {name.partition("_")[0] for name in documented if "_" in name}
    return [
        f"{name}{meant(name, documented, cutoff=0)}"
        for name in sorted(set(given) - set(documented))
        if "_" in name and name.partition("_")[0] in prefixes
    ]


def meant(name: str, known: c.Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that is most like this one, as the end of a sentence; empty where none is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def _faults(about: Options, value: t.Any, resolve: Resolve, where: str) -> c.Iterator[str]:
    kind, options, choices = about.get("type", "str"), about.get("options"), about.get("choices")
    if isinstance(value, str) and (kind not in ("str", "path", "raw") or choices):
        try:
            value = resolve(value)
        except NotYet:
            return
        if value is None:
            return  # as if it were not given
    fits, wanted = TYPES[kind]
    if not fits(value) or (kind == "raw" and options and isinstance(value, list)):
        yield f"{where} is {_shown(value, kind)}, and has to be {wanted}"
    elif choices and kind != "list" and value not in choices:
        yield f"{where} is {value!r}, and has to be one of {', '.join(choices)}"
    elif kind == "list":
        element = {**about, "type": about["elements"]}
        for place, one in enumerate(value):
            yield from _faults(element, one, resolve, f"{where}[{place}]")
    elif options and isinstance(value, c.Mapping):
        yield from faults(options, value, resolve, f"{where}.")
        for names in about.get("mutually_exclusive", ()):
            if len(both := [name for name in names if value.get(name) is not None]) > 1:
                yield f"{where} has {' and '.join(both)}, and may have one of them"


def _shown(value: t.Any, kind: str) -> str:
    """A value in a message; of what may hold secrets, only what it is."""
    if isinstance(value, c.Mapping):
        return "a dictionary"
    if isinstance(value, list):
        return "a list"
    return "a text" if isinstance(value, str) and kind in ("dict", "list") else repr(value)


def _is_number(value: t.Any, kind: type[int] | type[float]) -> bool:
    if isinstance(value, bool):
        return False
    try:
        return kind(value) == value or isinstance(value, str)
    except (TypeError, ValueError):
        return False


TYPES: dict[str, tuple[t.Callable[[t.Any], bool], str]] = {
    "bool": (lambda value: str(value).lower() in BOOLEANS, "true or false"),
    "dict": (lambda value: isinstance(value, c.Mapping), "a dictionary"),
    "float": (lambda value: _is_number(value, float), "a number"),
    "int": (lambda value: _is_number(value, int), "a whole number"),
    "list": (lambda value: isinstance(value, list), "a list"),
    "path": (lambda value: not isinstance(value, (c.Mapping, list)), "a path"),
    "raw": (lambda _value: True, "a text or a dictionary"),
    "str": (lambda value: not isinstance(value, (c.Mapping, list)), "a text"),
}
"""Each type of an argument spec: whether a value is of it, and how people call it."""
