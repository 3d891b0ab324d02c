# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The env files and generated files of a task: the main tree's file with the task's values placed into it.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import typing as t

from . import _env_file, _files, _git, _secrets
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError
from ._manifest import Manifest, text_signature
from ._placing import inside, keep_out_of_git, refuse_foreign

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
        },
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "repo": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "source": {"type": "str"},
            "values": {"type": "dict", "default": {}},
            "content": {"type": "str"},
            "mode": {"type": "str"},
        },
        "mutually_exclusive": [("content", "source"), ("content", "values")],
    },
    "password_file": {"type": "path", "no_log": False},
}

_SECRET_KEY = re.compile(r"pass|secret|token|key|credential|auth|dsn", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):([^@/\s]+)@")


def operation(params: Params, *, check: bool) -> Result:
    """Write the files that differ, all checked before the first is written."""
    worktrees = {worktree["name"]: worktree for worktree in params["worktrees"]}
    known = _known_secrets(params["password_file"], check=check)
    # A file of a repository that this task did not take is not asked for.
    wanted = [
        _Wanted.of(worktrees[given["repo"]], given, known) for given in params["files"] if given["repo"] in worktrees
    ]
    to_write = [file for file in wanted if file.differs]
    if not check:
        for file in to_write:
            file.write()
        by_worktree: dict[str, list[str]] = {}
        for file in to_write:
            by_worktree.setdefault(file.worktree, []).append(file.place)
        for worktree, places in by_worktree.items():
            keep_out_of_git(worktree, places)
    return {
        "changed": bool(to_write),
        "files": [file.place for file in wanted],
        "actions": [f"write {file.place}" for file in to_write],
        "diff": [
            {
                "before_header": file.place,
                "after_header": file.place,
                "before": _secrets.mask(file.shown_before, known),
                "after": _secrets.mask(file.shown_after, known),
            }
            for file in to_write
        ],
    }


def _known_secrets(password_file: str | None, *, check: bool) -> dict[str, str]:
    if password_file is None:
        return {}
    try:
        return {_secrets.DATABASE_PASSWORD: _secrets.read(password_file)}
    except FileNotFoundError as error:
        if check:
            return {}  # before the database is made; the placeholder stays, as nothing is written
        hint = "run provision again: it makes what is missing"
        raise EnvironmentFailure(f"the password file {password_file} is not there", hint=hint) from error


@dataclasses.dataclass
class _Wanted:
    """One file: where it goes, what is there, and what is to be there."""

    worktree: str
    place: str
    manifest: Manifest | None
    before: bytes | None
    after: bytes
    mode: int
    shown_before: str
    shown_after: str

    @property
    def differs(self) -> bool:
        return self.before != self.after or stat.S_IMODE(os.stat(self.place).st_mode) != self.mode

    @classmethod
    def of(cls, worktree: Params, given: Params, known: t.Mapping[str, str]) -> _Wanted:
        place = inside(worktree["path"], given["path"])
        if os.path.islink(place) or os.path.isdir(place):
            raise UserError(
                f"cannot write {place}: it is a {'symbolic link' if os.path.islink(place) else 'folder'}",
                hint=f"look at it, then remove it: rm {place}",
            )
        manifest = Manifest.around(place)
        before = _bytes(place) if os.path.lexists(place) else None
        if given["content"] is not None:
            text = given["content"]
            default_mode = 0o644
            if before is not None and not _is_clean_in_git(place) and before != _secrets.reveal(text, known).encode():
                refuse_foreign(place, manifest, "write")
            shown = ("" if before is None else before.decode("utf-8", "replace"), text)
        else:
            source = os.path.normpath(os.path.join(worktree["source"], given["source"] or given["path"]))
            # What somebody wrote or edited keeps that: the values are placed into what is there, which stays his work.
            keep = before is not None and not (manifest and manifest.is_ours(place))
            origin = place if keep else source
            if keep and not _is_clean_in_git(place):
                manifest = None
            base = _text(origin, f"repository {worktree['name']}: the env file {source}")
            default_mode = stat.S_IMODE(os.stat(origin).st_mode)
            values = {key: _as_text(key, value) for key, value in given["values"].items()}
            text = _env_file.place(base, values)
            read = {} if before is None else _env_file.read(before.decode("utf-8", "replace"))
            former = {key: read[key] for key in values if key in read}
            revealed = {key: _secrets.reveal(value, known) for key, value in values.items()}
            shown = (_lines(former), (f"# {source}, and in it:\n" if before is None else "") + _lines(revealed, former))
        if _secrets.DATABASE_PASSWORD in text:
            default_mode = 0o600
        mode = default_mode if given["mode"] is None else _mode(given["mode"])
        after = _secrets.reveal(text, known).encode()
        return cls(worktree["path"], place, manifest, before, after, mode, *shown)

    def write(self) -> None:
        if self.manifest:
            self.manifest = Manifest.around(self.place) or self.manifest
            self.manifest.note(self.place, text_signature(self.after))
            self.manifest.save()
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        _files.write(self.place, self.after, mode=self.mode)


def _lines(values: t.Mapping[str, str], former: t.Mapping[str, str] | None = None) -> str:
    """Values as a diff may show them: what looks like a secret is masked, and told where it is another than before."""
    lines = []
    for key, value in values.items():
        shown = _secrets.MASK if _SECRET_KEY.search(key) else _URL_PASSWORD.sub(rf"\1:{_secrets.MASK}@", value)
        if shown != value and former and former.get(key, value) != value:
            shown += " (changed)"
        lines.append(f"{key}={shown}\n")
    return "".join(lines)


def _as_text(key: str, value: t.Any) -> str:
    _env_file.check_key(key)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise UserError(f"the value of {key} is a {type(value).__name__}, and env files hold text", hint="use | to_json")


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError as error:
        raise UserError(f"the mode {text!r} is not an octal number", hint="write it as '0600'") from error


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {path}: {error.strerror}") from error


def _text(path: str, what: str) -> str:
    if not os.path.exists(path):
        raise EnvironmentFailure(f"{what} is missing", hint=f"make it in the main tree: {path}")
    try:
        return _bytes(path).decode()
    except UnicodeDecodeError as error:
        raise EnvironmentFailure(
            f"{what} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}",
            hint=f"convert it: iconv -f ISO-8859-1 -t UTF-8 {path}",
        ) from error


def _is_clean_in_git(place: str) -> bool:
    """Whether git has this very content, so that replacing it loses nothing."""
    folder, name = os.path.split(place)
    tracked = _git.git(folder, "ls-files", "--error-unmatch", "--", name).ok
    return tracked and not _git.must(
        folder, "status", "--porcelain", "--", name, doing=f"asking git for the state of {place}"
    )
