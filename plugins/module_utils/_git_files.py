# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What git's own files say about a repository, read without a git process.

Private to this collection: may change without notice.

The formats are documented: gitrepository-layout(5), git-config(1), git-pack-refs(1) and gitformat-index(5). Only what
is plain is read here. Where a file is missing, broken, in another format or in any doubt, a function returns None, and
the caller runs git, which knows all cases and says what is wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import struct
import typing as t

Settings = dict[str, list[str]]
"""The values of settings by their names in lower case, sections of remotes and branches with them."""

_COMMENT = re.compile(r"\s*([#;].*)?")
_SECTION = re.compile(r'\s*\[([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\]|\\["\\])*)")?\]\s*([#;].*)?')
_SETTING = re.compile(
    r"""
    \s* (?P<name> [A-Za-z][A-Za-z0-9-]* ) \s*
    (?: = \s* (?P<value> (?: [^"\\#;] | \\["\\tnb] | " (?: [^"\\] | \\["\\tnb] )* " )*? ) \s* )?
    (?: [#;] .* )?
    """,
    re.VERBOSE,
)
_KNOWN_EXTENSIONS = {"extensions.worktreeconfig", "extensions.partialclone"}
_OBJECT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_BRANCH = "ref: refs/heads/"
_REMOTES = "refs/remotes/"


@dataclasses.dataclass(frozen=True)
class Head:
    """What is checked out in a worktree.

    :ivar branch: without ``refs/heads/``; None where HEAD is detached.
    :ivar commit: of a detached HEAD.
    """

    branch: str | None
    commit: str | None


def read(path: str) -> str | None:
    """The text of a file, without line ends after it."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")
    return None


def common_of(folder: str) -> str | None:
    """The common git directory of the repository that git works on in a folder, as the top of a working tree."""
    dot_git = os.path.join(folder, ".git")
    admin = dot_git
    if not os.path.isdir(dot_git):
        text = read(dot_git)
        if text is None or not text.startswith("gitdir: "):
            return None
        admin = os.path.join(folder, text.removeprefix("gitdir: "))
    named = read(os.path.join(admin, "commondir"))
    common = os.path.realpath(admin if named is None else os.path.join(admin, named))
    if not (_is_own(folder, dot_git, admin) and _is_whole(common) and head(admin)):
        return None
    settings = _settings(common, admin)
    if settings is None:
        return None
    if named is not None and not is_true(settings, "extensions.worktreeconfig"):
        return common  # core.bare and core.worktree are then the main tree's alone
    tops = settings.get("core.worktree", [folder])
    is_top = os.path.realpath(os.path.join(os.path.realpath(admin), tops[-1])) == os.path.realpath(folder)
    return common if is_top and is_true(settings, "core.bare") is False else None


def _is_own(folder: str, dot_git: str, admin: str) -> bool:
    """Whether git trusts what lies there whatever ``safe.directory`` says."""
    try:
        abouts = (os.stat(folder), os.lstat(dot_git), os.stat(admin))
    except OSError:
        return False
    return {about.st_uid for about in abouts} == {os.geteuid()}


def _is_whole(common: str) -> bool:
    return all(os.path.isdir(os.path.join(common, name)) for name in ("objects", "refs"))


def _settings(common: str, admin: str) -> Settings | None:
    """The settings that count in a worktree of a repository, whose format is one that is read here."""
    found = config(os.path.join(common, "config"))
    if found is None or os.path.isdir(os.path.join(common, "reftable")):
        return None
    extensions = {name for name in found if name.startswith("extensions.")}
    if extensions - _KNOWN_EXTENSIONS or found.get("core.repositoryformatversion", ["0"])[-1] not in ("0", "1"):
        return None
    more = config(os.path.join(admin, "config.worktree")) if is_true(found, "extensions.worktreeconfig") else {}
    settings = None if more is None else {**found, **more}
    flags = ("extensions.worktreeconfig", "core.bare")
    return settings if settings and None not in (is_true(settings, name) for name in flags) else None


def is_true(settings: Settings, name: str) -> bool | None:
    """Whether a setting is true, not set or false; None where it is written in another way."""
    return {"true": True, "false": False}.get(settings.get(name, ["false"])[-1])


def config(path: str) -> Settings | None:
    """The settings in a file, without those that it includes; one that is not there has none."""
    if not os.path.lexists(path):
        return {}
    text = read(path)
    section, found = None, Settings()
    for line in [] if text is None else text.split("\n"):
        if _COMMENT.fullmatch(line):
            continue
        if header := _SECTION.fullmatch(line):
            section = header[1].lower() + (f".{header[2]}" if header[2] is not None else "")
        elif section is not None and (setting := _SETTING.fullmatch(line)):
            value = "true" if setting["value"] is None else setting["value"]
            found.setdefault(f"{section}.{setting['name'].lower()}", []).append(_unquoted(value))
        else:
            return None
    return None if text is None else found


def _unquoted(value: str) -> str:
    escapes = {"t": "\t", "n": "\n", "b": "\b"}
    return re.sub(r'\\(.)|"', lambda match: escapes.get(match[1], match[1]) if match[1] else "", value)


def head(admin: str) -> Head | None:
    """What is checked out in the worktree that has this git directory."""
    path = os.path.join(admin, "HEAD")
    text = None if os.path.islink(path) else read(path)
    if text is None or text == _BRANCH + ".invalid":
        return None
    if text.startswith(_BRANCH):
        return Head(text.removeprefix(_BRANCH), None)
    return Head(None, text) if _OBJECT.fullmatch(text) and text.strip("0") else None


def refs(common: str, patterns: t.Iterable[str]) -> dict[str, str] | None:
    """The objects of refs by name: of those that are named, and of all below them.

    A ref that is not in a file of its own is in ``packed-refs``, which git writes before it removes that file.
    """
    if _settings(common, common) is None or not _is_whole(common):
        return None
    wanted = tuple(dict.fromkeys(patterns))
    found = dict(pair for pattern in wanted for pair in _loose(common, pattern))
    packed = os.path.join(common, "packed-refs")
    text = read(packed) if os.path.lexists(packed) else ""
    if text is None:
        return None
    below = tuple(f"{pattern}/" for pattern in wanted)
    for line in text.split("\n"):
        commit, _space, ref = line.partition(" ")
        if commit[:1] not in ("#", "^") and (ref in wanted or ref.startswith(below)):
            found.setdefault(ref, commit)
    for ref, value in found.items():
        # The branch that a remote has checked out, as each clone has it.
        if ref.startswith(_REMOTES) and value.startswith(f"ref: {_REMOTES}"):
            target = value.removeprefix("ref: ")
            found[ref] = found.get(target) or (refs(common, [target]) or {}).get(target, "")
    return found if all(map(_OBJECT.fullmatch, found.values())) else None


def _loose(common: str, pattern: str) -> t.Iterator[tuple[str, str]]:
    place = os.path.join(common, pattern)
    if os.path.isfile(place):
        yield pattern, read(place) or ""
    for folder, _folders, files in os.walk(place):
        for name in files:
            path = os.path.join(folder, name)
            # A file that is gone by now is in packed-refs, or its ref was deleted.
            if not name.endswith(".lock") and (text := read(path)) is not None:
                yield os.path.relpath(path, common), text


def is_bare(common: str) -> bool | None:
    """Whether a repository has no main working tree."""
    settings = _settings(common, common)
    return None if settings is None or "core.bare" not in settings else is_true(settings, "core.bare")


def submodules_in(index: str) -> list[str] | None:
    """The paths of submodules in an index; None as well where it has a file that git was told not to look at."""
    try:
        with open(index, "rb") as file:
            data = file.read()
        is_whole = hashlib.sha1(data[:-_ID], usedforsecurity=False).digest() == data[-_ID:]
        return _submodules_in(data) if is_whole else None
    except (OSError, struct.error):
        return None


_ID = 20
"""The bytes of an object's id, and of the checksum that an index ends with (SHA-1)."""
_ENTRY = struct.Struct(f">24xI12x{_ID}xH")
"""The mode and the flags of an entry of an index, which its path follows."""
_SUBMODULE, *_FILES = (0o160000, 0o100644, 0o100755, 0o120000)
_ASSUME_VALID, _EXTENDED, _NAME_LENGTH = 0x8000, 0x4000, 0x0FFF


def _submodules_in(data: bytes) -> list[str] | None:
    signature, version, entries = struct.unpack_from(">4sII", data)
    if signature != b"DIRC" or version not in (2, 3):
        return None
    found, place = [], 12
    for _number in range(entries):
        mode, flags = _ENTRY.unpack_from(data, place)
        length, begin = flags & _NAME_LENGTH, place + _ENTRY.size
        if mode not in (_SUBMODULE, *_FILES) or flags & (_ASSUME_VALID | _EXTENDED) or length == _NAME_LENGTH:
            return None
        path = data[begin : begin + length]
        if b"\0" in path or data[begin + length : begin + length + 1] != b"\0":
            return None
        if mode == _SUBMODULE:
            found.append(os.fsdecode(path))
        place += (_ENTRY.size + length + 8) & ~7
    while place < len(data) - _ID:
        name, length = struct.unpack_from(">4sI", data, place)
        if not name[:1].isupper():
            return None  # an extension without which the entries are not all, such as that of a split index
        place += 8 + length
    return list(dict.fromkeys(found)) if place == len(data) - _ID else None
