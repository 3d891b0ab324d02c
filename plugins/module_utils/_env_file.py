# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of env files: read their entries, and place values in them so that nothing else moves.

Private to this collection: may change without notice.

Who will read a file is not known here, so a value is only written as bash (``set -a; . file``), docker compose,
python-dotenv and Node's dotenv all read it alike. They agree on quotes and on newlines inside quotes. They do not
agree on escapes, so none is ever written.
"""

from __future__ import annotations

import re
import typing as t

from ._errors import UserError

BYTE_ORDER_MARK = "\ufeff"
KEY = r"[A-Za-z_][A-Za-z0-9_.-]*"

ENTRY = re.compile(
    rf"""
    (?P<head>
        (?<! [^\r\n] ) {BYTE_ORDER_MARK}?                # from the start of a line
        [ \t]* (?: export [ \t]+ )? (?P<key> {KEY} ) [ \t]*
        = (?: [ \t]+ (?= [^ \t\r\n\#] ) )?               # blanks with no value behind them are the tail's
    )
    (?P<value>
        (?P<quote> ['"`] ) (?P<quoted> (?: \\[\s\S] | (?! (?P=quote) ) [^\\] )* ) (?P=quote)
      | [^\r\n]*?
    )
    (?P<tail> [ \t]* (?: (?(quote) | (?<= [ \t] ) ) \# [^\r\n]* )? )
    (?! [^\r\n] )                                        # to the end of one, maybe another
    """,
    re.VERBOSE,
)

NEWLINE = re.compile(r"\r\n?")
ESCAPE = re.compile(r'\\([nrt"\\$`])')
ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}

HOLDS = {
    # No blank, no comment, nothing that a shell expands.
    "": re.compile(r"[\w./:@%+,=?-]*"),
    # python-dotenv unescapes \\ and \' and expands ${...} even here.
    "'": re.compile(r"(?! .* (?: \\\\ | \$\{ ) ) [^'\0\r]* (?<! \\ )", re.DOTALL | re.VERBOSE),
    '"': re.compile(r'[^"\\$`\0\r]*'),
    # To Node a quote, but bash runs what is inside: read, never written.
    "`": re.compile(r"(?!)"),
}
"""Which values a quote carries to every reader unchanged."""


def read(text: str) -> dict[str, str]:
    """The values of a file by key; of a key that occurs twice the last, as every reader has it.

    Escapes are undone as dotenv readers do it. Variables are not expanded.
    """
    return {entry["key"]: _value(entry) for entry in ENTRY.finditer(text)}


def place(text: str, values: t.Mapping[str, str]) -> str:
    """The text with these values: each occurrence of a key gets its value, absent keys follow at the end.

    All else stays as it is, and so does an entry that has its value already. An entry keeps its quotes if they hold
    the new value. Placing twice is placing once.

    :raises UserError: a key is none; a value cannot be written so that all readers agree; or a quote that the file
        opens and never closes would end in a value.
    """
    for key in values:
        check_key(key)

    def renewed(entry: re.Match[str]) -> str:
        key = entry["key"]
        if key not in values or values[key] == _value(entry):
            return entry[0]
        return entry["head"] + _written(key, values[key], entry["quote"] or "", entry["tail"]) + entry["tail"]

    known = read(text)
    placed = ENTRY.sub(renewed, text)
    newline = "\r\n" if "\r\n" in text else "\n"
    added = "".join(f"{key}={_written(key, values[key])}{newline}" for key in values if key not in known)
    if added and placed not in ("", BYTE_ORDER_MARK) and placed[-1] not in "\r\n":
        placed += newline
    placed += added

    _refuse_open_quote(placed, {**known, **values}, values)
    return placed


def append(text: str, values: t.Mapping[str, str]) -> str:
    """The text with these values at its end, where every reader has them win over what stands before.

    :raises UserError: as of :func:`place`.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    if text not in ("", BYTE_ORDER_MARK) and text[-1] not in "\r\n":
        text += newline
    for key in values:
        check_key(key)
    appended = text + "".join(f"{key}={_written(key, value)}{newline}" for key, value in values.items())
    _refuse_open_quote(appended, {**read(text), **values}, values)
    return appended


def check_key(key: str) -> None:
    """Refuse what is no key to the dotenv readers.

    Dots and dashes are for them (``spring.datasource.url``): bash has no such variables, complains of the line and
    reads on. A digit in front is refused because docker compose passes over such a line without a word.

    :raises UserError: it is not a letter or underscore, followed by letters, digits, underscores, dots, dashes.
    """
    if not re.fullmatch(KEY, key):
        raise UserError(
            f"{key!r} cannot be a key in an env file",
            hint="a key is a letter or _, followed by letters, digits, _ . and -",
        )


def _refuse_open_quote(text: str, wanted: t.Mapping[str, str], values: t.Iterable[str]) -> None:
    found = read(text)
    changed = [key for key, value in wanted.items() if found.get(key) != value]
    if changed:
        raise UserError(
            f"cannot place {', '.join(values)} in an env file that opens a quote and does not close it: "
            f"{', '.join(changed)} would read otherwise",
            hint="close the quote, or put a # before its line",
        )


def _value(entry: re.Match[str]) -> str:
    quote = entry["quote"]
    if quote is None:
        return entry["value"]
    inside = NEWLINE.sub("\n", entry["quoted"])
    if quote == '"':
        return ESCAPE.sub(lambda escape: ESCAPED.get(escape[1], escape[1]), inside)
    return inside.replace(f"\\{quote}", quote)


def _written(key: str, value: str, own: str = "", tail: str = "") -> str:
    """A value in the entry's own quotes, or in the mildest that hold it; ``tail`` is what follows on the line."""
    for quote in (own, "'", '"'):
        # Some readers take the comment for the value when there is nothing else.
        nothing_but_comment = not (quote or value) and "#" in tail
        if HOLDS[quote].fullmatch(value) and not nothing_but_comment:
            return f"{quote}{value}{quote}"
    raise UserError(
        f"the value of {key} cannot be written in an env file so that bash, docker compose, python-dotenv and Node "
        "all read it alike",
        hint="avoid NUL, carriage return, ${, two backslashes in a row, a backslash at the end, and ' together with "
        "any of \" $ ` \\ (in a URL %27 stands for ', in JSON \\u0027)",
    )
