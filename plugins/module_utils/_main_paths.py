# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main trees' absolute paths in a configuration file, and those of a task's worktrees in their place.

Private to this collection: may change without notice.

Only text within strings is changed (of an env file, within values), and only that part of a string which is the path:
comments, order, blanks and the way in which a string is written stay.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import typing as t

from . import _env_file
from ._errors import EnvironmentFailure

JSON_SUFFIXES = (".json", ".jsonc", ".code-workspace")
YAML_SUFFIXES = (".yaml", ".yml")
JSON_TOKEN = re.compile(
    r"""
    (?P<string> " (?: [^"\\\x00-\x1f] | \\. )* " )
    | (?P<comment> // [^\r\n]* | /\* [\s\S]*? \*/ )
    | (?P<comma> , (?= (?: \s | // [^\r\n]* | /\* [\s\S]*? \*/ )* [\]}] ) )
    """,
    re.VERBOSE,
)
TOML_TOKEN = re.compile(
    r'''
    (?P<comment> \# [^\r\n]* )
    | (?P<string>
        """ (?: [^\\] | \\[\s\S] )*? "{3,5} (?! " )
      | \'\'\' [\s\S]*? \'{3,5} (?! \' )
      | " (?: [^"\\\r\n] | \\. )* "
      | ' [^'\r\n]* '
    )
    ''',
    re.VERBOSE,
)


class Moves:
    """From the main trees to the worktrees: what a path becomes.

    :arg trees: the folder of a task's worktree by that of its main tree.
    """

    def __init__(self, trees: t.Mapping[str, str]) -> None:
        self.trees = {os.path.normpath(main): os.path.normpath(tree) for main, tree in trees.items()}
        longest_first = sorted({*self.trees, *self.trees.values()}, key=len, reverse=True)
        # A worktree mostly lies inside of its main tree: found first, it is left alone.
        self._path = re.compile(
            r"(?: (?<! [\w.~/%-] ) | (?<= file:// ) ) (?P<path> "
            + " | ".join(re.escape(path) for path in longest_first)
            + r""" ) (?= $ | [/:;,="'`()\[\]{}?\#&|<>\s] ) (?! /+ \.git (?: $ | [/"'\s] ) )""",
            re.VERBOSE,
        )

    def __call__(self, text: str) -> str:
        return self._path.sub(lambda match: self.trees.get(match["path"], match["path"]), text)


def rewritten(text: str, path: str, moves: Moves) -> str:
    """The text of a file with its paths moved; JSON (comments allowed) and TOML by their suffix, else an env file.

    Doing it twice is doing it once.

    :raises EnvironmentFailure: it is not what its suffix says.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in JSON_SUFFIXES:
        return _in_strings(text, path, moves, "JSON", JSON_TOKEN, _json, _json_string)
    if suffix == ".toml":
        return _in_strings(text, path, moves, "TOML", TOML_TOKEN, tomllib.loads, _toml_string)
    return _env_file.ENTRY.sub(lambda entry: f"{entry['head']}{moves(entry['value'])}{entry['tail']}", text)


def is_structured(path: str) -> bool:
    """Whether a file is no env file by its suffix."""
    return os.path.splitext(path)[1].lower() in (*JSON_SUFFIXES, *YAML_SUFFIXES, ".toml")


def is_yaml(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in YAML_SUFFIXES


def _in_strings(
    text: str,
    path: str,
    moves: Moves,
    language: str,
    token: re.Pattern[str],
    read: t.Callable[[str], t.Any],
    write: t.Callable[[str, str], str],
) -> str:
    def value_of(literal: str) -> str | None:
        try:
            return t.cast(str, read(f"value = {literal}")["value"] if language == "TOML" else json.loads(literal))
        except (ValueError, KeyError):
            return None

    def renewed(match: re.Match[str]) -> str:
        literal = match["string"]
        former = None if literal is None else value_of(literal)
        if former is None or (wanted := moves(former)) == former:
            return match[0]
        # As it stands where that says the same, so that other escapes in it stay as they were written.
        in_place = moves(literal[1:-1])
        as_it_stands = f"{literal[0]}{in_place}{literal[-1]}"
        return as_it_stands if value_of(as_it_stands) == wanted else write(wanted, literal)

    try:
        read(text.removeprefix("\ufeff"))
    except ValueError as error:
        raise EnvironmentFailure(
            f"{path} is not {language}: {error}",
            hint="mend it in the main tree, or leave rewrite_paths out for it",
        ) from error
    return token.sub(renewed, text)


def _json(text: str) -> t.Any:
    """Read JSON with comments and trailing commas, as editors and their agents write it."""
    return json.loads(JSON_TOKEN.sub(lambda match: match["string"] or " ", text))


def _json_string(value: str, literal: str) -> str:
    written = json.dumps(value, ensure_ascii=literal.isascii())
    return written.replace("/", "\\/") if "\\/" in literal else written


def _toml_string(value: str, literal: str) -> str:  # noqa: ARG001 - a plain string holds any value
    # TOML has JSON's escapes, and wants DEL escaped as well; surrogate pairs it does not have.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
