# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main tree's ports in an env file, and a task's own in their place.

Private to this collection: may change without notice.

A number is a port by where it stands, never by its value alone: in an entry whose key says so (``DB_PORT``), behind a
host of this machine (``http://localhost:3000/api``), or as ``port=`` of a connection string. ``TIMEOUT=3000``,
``https://api.example.com:3000`` and a password ``3000`` only look alike.
"""

from __future__ import annotations

import re
import typing as t

from . import _env_file

NUMBER = r"[0-9]{1,5}"
NAMES = r"(?:[a-z0-9_-]+\.)* (?:localhost|test) | host\.docker\.internal"
HOST = rf"(?: {NAMES} | 127(?:\.[0-9]{{1,3}}){{3}} | 0\.0\.0\.0 | \[::1?\] )"
"""The hosts that are this machine; the top-level domains ``localhost`` and ``test`` are nobody else's (RFC 6761)."""

BEHIND_HOST = re.compile(
    rf"""
    (?<! [\w.%\]-] ) (?<! (?<! / ) / )    # the host's begin: nothing of a name before it, and not a folder of a path
    (?P<host> {HOST} ) :
    (?P<number> {NUMBER} )
    (?! [\w@:%-] | \. [0-9] )             # "localhost:3000@" would be a user and his password
    """,
    re.IGNORECASE | re.VERBOSE,
)
PARAMETER = re.compile(rf"(?<![\w.-])(?P<head>port\s*=\s*'?)(?P<number>{NUMBER})(?![\w.])", re.IGNORECASE)
FOREIGN_HOST = re.compile(
    rf"(?<![\w.-]) (?:host|hostaddr|server) \s*=\s* '? (?! {HOST} (?![\w.-]) ) [\w.] | ://", re.IGNORECASE | re.VERBOSE
)

EVERYWHERE = re.compile(rf"""\s*['"`]?\*?:{NUMBER}['"`]?\s*""")
ADDRESSES = {"ADDR", "ADDRESS", "BIND", "LISTEN"}
"""In an entry whose key has such a word, ``:3000`` is a port on all addresses."""

BESIDE = re.compile(r"(?P<of> .+ _ ) (?: PORT | port )", re.VERBOSE)
ELSEWHERE = re.compile(rf"(?! {HOST} $ ) [\w-]+ (?: \. [\w-]+ )+", re.IGNORECASE | re.VERBOSE)
"""A name with dots, or an address, that is not this machine's."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
NO_PORTS = {
    "AIRPORT",
    "EXPORT",
    "IMPORT",
    "PASSPORT",
    "RAPPORT",
    "REPORT",
    "SUPPORT",
    "TELEPORT",
    "TRANSPORT",
    "VIEWPORT",
}
QUANTITIES = {"COUNT", "LIMIT", "MAX", "MIN", "OFFSET", "RANGE", "RETRIES", "SIZE", "TIMEOUT"}


EXPANSION = re.compile(r"\$\{ \w+ :?[-=?+] (?P<default> [^{}]* ) \}", re.VERBOSE)
BEHIND = re.compile(rf"(?P<host> [\w.*\[\]-]* ) : (?P<number> {NUMBER} ) (?! [\w@] )", re.VERBOSE)
BEFORE = re.compile(rf"(?<! [\w.] ) (?P<number> {NUMBER} ) (?= : {NUMBER} (?! \w ) )", re.VERBOSE)
ANYWHERE = re.compile(rf"(?<! [0-9] ) (?P<number> {NUMBER} ) (?! [0-9] )", re.VERBOSE)


def left(text: str, ports: t.Mapping[int, int]) -> list[tuple[str, int]]:
    """The main tree's ports that :func:`patched` leaves where they may well be meant: key and number.

    They stand in a default (``${PORT:-3000}``), behind a host of which it is not known whose it is, in a mapping
    (``3000:80``), or among more than ports in an entry whose key says that it has them.
    """
    values = _env_file.read(text)
    found: dict[tuple[str, int], None] = {}
    for entry in _env_file.ENTRY.finditer(text):
        key = entry["key"]
        if _is_elsewhere(key, values):
            continue
        value = patched_value(key, entry["value"], dict.fromkeys(ports, ""))
        numbers = [match["number"] for match in BEFORE.finditer(value)]
        numbers += [match["number"] for match in BEHIND.finditer(value) if not ELSEWHERE.fullmatch(match["host"])]
        inside = [value] if is_port(key) else [match["default"] for match in EXPANSION.finditer(value)]
        numbers += [match["number"] for part in inside for match in ANYWHERE.finditer(part)]
        found |= {(key, int(number)): None for number in numbers if int(number) in ports}
    return list(found)


def patched(text: str, ports: t.Mapping[int, int]) -> str:
    """The text of an env file with each port replaced, all at once; comments and everything else stay.

    :arg ports: the task's number by the main tree's.
    """
    values = _env_file.read(text)

    def renewed(entry: re.Match[str]) -> str:
        if _is_elsewhere(entry["key"], values):
            return entry[0]
        value = patched_value(entry["key"], entry["value"], ports)
        return f"{entry['head']}{value}{entry['tail']}"

    return _env_file.ENTRY.sub(renewed, text)


def _is_elsewhere(key: str, values: t.Mapping[str, str]) -> bool:
    """Whether a port is another machine's by the entry beside it: ``DB_PORT=5432``, ``DB_HOST=db.example.com``."""
    beside = BESIDE.fullmatch(key)
    hosts = ("HOST", "HOSTNAME", "SERVER", "host", "hostname", "server")
    return beside is not None and any(ELSEWHERE.fullmatch(values.get(beside["of"] + host, "")) for host in hosts)


def patched_value(key: str, value: str, ports: t.Mapping[int, object]) -> str:
    """The value of one entry, as it is written in its file."""

    def number_of(match: re.Match[str]) -> str:
        written = match["number"]
        # A port is written without a leading zero; 03000 is something else.
        task = None if written.startswith("0") else ports.get(int(written))
        return match[0].removesuffix(written) + (written if task is None else str(task))

    if is_port(key) and re.fullmatch(rf"""\s*['"`]?\s*{NUMBER}(?:[,;\s]+{NUMBER})*\s*['"`]?\s*""", value):
        return re.sub(rf"(?P<number>{NUMBER})", number_of, value)
    if ADDRESSES.intersection(_words(key)) and EVERYWHERE.fullmatch(value):
        return re.sub(rf"(?P<number>{NUMBER})", number_of, value)
    value = BEHIND_HOST.sub(number_of, value)
    return value if FOREIGN_HOST.search(value) else PARAMETER.sub(number_of, value)


def is_port(key: str) -> bool:
    """Whether the words of a key say that its value is a port: ``PORT``, ``DB_PORT``, ``pgport``, ``apiPort``."""
    words = _words(key)
    return not QUANTITIES.intersection(words) and any(
        word.removesuffix("S").endswith("PORT") and word.removesuffix("S") not in NO_PORTS for word in words
    )


def _words(key: str) -> list[str]:
    return [word.upper() for word in WORD.findall(key)]
