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

from . import _env_file, _exec, _files, _git, _kept_out, _main_paths, _main_ports, _secrets, _shell
from ._door import Params, Result, together, warned
from ._errors import EnvironmentFailure, UserError
from ._manifest import Manifest, text_signature
from ._placing import inside, keep_out_of_git, refuse_foreign

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
        },
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "repo": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "source": {"type": "str"},
            "values": {"type": "dict", "default": {}},
            "overrides": {"type": "dict", "default": {}},
            "patch_ports": {"type": "bool", "default": False},
            "rewrite_paths": {"type": "bool", "default": False},
            "content": {"type": "str"},
            "mode": {"type": "str"},
        },
        "mutually_exclusive": [("content", "source"), ("content", "values"), ("content", "overrides")],
    },
    "ports": {"type": "dict", "default": {}},
    "main_ports": {"type": "dict", "default": {}},
    "shell": {"type": "dict", "options": _shell.OPTIONS},
    "path": {"type": "path"},
    "values": {"type": "dict", "default": {}},
    "mode": {"type": "str"},
    "password_file": {"type": "path", "no_log": False},
}

_SECRET_KEY = re.compile(r"pass|secret|token|key|credential|auth|dsn", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):([^@/\s]+)@")
_SECRET_LINE = re.compile(
    r"""^ [\s,{-]* (?:export\s+)? ["']? [\w.-]* (?:pass|secret|token|credential|api_?key|private_?key) [\w.-]* ["']?
    [ \t]* [=:] [ \t]* ["']? (?! ["'] | \$\{? | true\b | false\b | null\b | [0-9]* \s*$ ) \S""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""A value in a file of any language, by whose key it is a secret."""


def operation(params: Params, *, check: bool) -> Result:
    """Write the files that differ, all env files checked before the first is written."""
    _refuse_mixture(params)
    known = _known_secrets(params["password_file"], check=check)
    if params["path"] is not None:
        return _written([_Wanted.alone(params, known)], known, check=check)
    if params["shell"]:
        _shell.refuse_unusable(params["worktrees"], params["shell"])
    done = _written(_of_worktrees(params, known), known, check=check)
    if not params["shell"]:
        return done
    # These look into the env files, so they come after them.
    shells = _shell.write(params["worktrees"], params["shell"], known, check=check)
    files = [*done["files"], *shells["files"]]
    return {**together(done, shells), "files": files, "left": shells["left"], "summary": shells["summary"]}


def _refuse_mixture(params: Params) -> None:
    """Refuse a call that names both one file and worktrees, or neither."""
    others = [key for key in ("worktrees", "files", "shell") if params[key]]
    if params["path"] is None:
        unused = [key for key in ("values", "mode") if params[key]]
        if unused or params["worktrees"] is None:
            raise UserError(
                f"env_file has {' and '.join(unused) or 'nothing to write'}, and no path",
                hint="give the file: path; or the files of worktrees: worktrees, with files or shell",
            )
    elif others:
        raise UserError(
            f"env_file has both path and {' and '.join(others)}",
            hint="write one file with path and values, and files of worktrees in another call",
        )


def _of_worktrees(params: Params, known: t.Mapping[str, str]) -> list[_Wanted]:
    """The env files; one of a repository that this task did not take is passed over."""
    worktrees = {worktree["name"]: worktree for worktree in params["worktrees"]}
    from_main = _FromMain(
        _moves(params["worktrees"]) if any(given["rewrite_paths"] for given in params["files"]) else None,
        _ports(params) if any(given["patch_ports"] for given in params["files"]) else {},
    )
    return [
        _Wanted.of(worktrees[given["repo"]], given, known, from_main)
        for given in params["files"]
        if given["repo"] in worktrees
    ]


def _written(wanted: t.Sequence[_Wanted], known: t.Mapping[str, str], *, check: bool) -> Result:
    to_write = [file for file in wanted if file.differs]
    to_hide = [file.place for file in wanted if file.is_seen]
    if not check:
        _kept_out.hide(to_hide)
        keep_out_of_git((file.worktree, file.place) for file in to_write if file.worktree)
        for file in to_write:
            file.write()
        for file in wanted:
            file.note()
    return {
        "changed": bool(to_write or to_hide),
        "files": [file.place for file in wanted],
        "left": [],
        "summary": None,
        "actions": [
            *(f"keep {place}, which git tracks, out of the task's commits" for place in to_hide),
            *(f"write {file.place}" for file in to_write),
        ],
        "diff": [
            {
                "before_header": file.place,
                "after_header": file.place,
                "before": _secrets.mask(file.shown_before, known),
                "after": _secrets.mask(file.shown_after, known),
            }
            for file in to_write
        ],
        **warned(*(line for file in wanted for line in file.warnings)),
    }


def refuse_contradiction(given: t.Mapping[str, t.Any]) -> None:
    """Refuse what is asked of a file that is no env file.

    :raises UserError: it is of another language, which is not read here.
    """
    path = given["path"]
    asked = [key for key in ("values", "overrides", "patch_ports") if given.get(key)]
    if _main_paths.is_yaml(path) and given.get("rewrite_paths"):
        asked.append("rewrite_paths")
    if asked and _main_paths.is_structured(path):
        raise UserError(
            f"{path} is no env file, so {' and '.join(asked)} cannot be placed in it",
            hint="give its whole text in their place: "
            "content: \"{{ lookup('ansible.builtin.template', workspace_root ~ '/"
            + os.path.basename(path)
            + ".j2') }}\"",
        )


def _known_secrets(password_file: str | None, *, check: bool) -> dict[str, str]:
    if check and not os.path.exists(password_file or ""):
        return {}  # before the database is made; the placeholder stays, as nothing is written
    return _exec.known_secrets(password_file)


@dataclasses.dataclass(frozen=True)
class _FromMain:
    """What stands for the main tree in its files, and for the task in the task's.

    :ivar ports: the task's ports by the main tree's.
    """

    moves: _main_paths.Moves | None
    ports: dict[int, int]

    def applied(self, text: str, given: Params, place: str, *, fresh: bool) -> str:
        """The text of a file with the task's paths and ports.

        :arg fresh: it is the main tree's; a port that was patched before may be another's number in the main tree.
        """
        if given["rewrite_paths"] and self.moves:
            text = _main_paths.rewritten(text, place, self.moves)
        return _main_ports.patched(text, self.ports) if given["patch_ports"] and fresh else text

    def left(self, text: str, given: Params, place: str, *, fresh: bool) -> list[str]:
        """What is not known to be the task's, a line each."""
        if not (given["patch_ports"] and fresh):
            return []
        return [
            f"{place}: {key} still has the main tree's port {number}, since it is not known whether it is meant; if "
            f"it is, say what the task's is in values: {{{key}: ...}}"
            for key, number in _main_ports.left(text, self.ports)
            if key not in given["values"] and key not in given["overrides"]
        ]

    def told(self, source: str, base: str, text: str) -> str:
        """What was done to a file whose strings may be secrets, so none of them is shown."""
        trees = self.moves.trees if self.moves else {}
        moved = [f"{main} became {tree}\n" for main, tree in trees.items() if text.count(tree) > base.count(tree)]
        return "".join([f"# {source}, and in it:\n", *moved])


def _moves(worktrees: t.Sequence[Params]) -> _main_paths.Moves:
    """The paths of all main trees, as they are spelled and as they really are."""
    spelled = {worktree["source"]: worktree["path"] for worktree in worktrees}
    return _main_paths.Moves({os.path.realpath(main): tree for main, tree in spelled.items()} | spelled)


def _ports(params: Params) -> dict[int, int]:
    """The task's ports by the main tree's.

    :raises UserError: two of the main tree's have one number, so which is meant cannot be told.
    """
    ports: dict[int, int] = {}
    for name, main in (params["main_ports"] or {}).items():
        if name not in (params["ports"] or {}):
            continue
        number, task = int(main), int(params["ports"][name])
        if ports.setdefault(number, task) != task:
            raise UserError(
                f"the main tree has {number} for several ports, {name} among them, so it cannot be patched",
                hint=f"say what the main tree uses: lease_ports.{name}.main",
            )
    return ports


@dataclasses.dataclass
class _Wanted:
    """One file: where it goes, what is there, and what is to be there.

    :ivar worktree: its folder; None for a file by itself.
    :ivar is_seen: git tracks it and would take what is written there for a change of the task.
    """

    worktree: str | None
    place: str
    manifest: Manifest | None
    before: bytes | None
    after: bytes
    mode: int
    shown_before: str
    shown_after: str
    warnings: list[str]
    is_seen: bool = False

    @property
    def differs(self) -> bool:
        return self.before != self.after or stat.S_IMODE(os.stat(self.place).st_mode) != self.mode

    @classmethod
    def of(cls, worktree: Params, given: Params, known: t.Mapping[str, str], from_main: _FromMain) -> _Wanted:
        place = inside(worktree["path"], given["path"])
        refuse_contradiction(given)
        _refuse_no_file(place)
        manifest = Manifest.around(place)
        before = _bytes(place) if os.path.lexists(place) else None
        committed = None if before is None else _committed(place)
        if given["content"] is not None:
            text = given["content"]
            default_mode = 0o600 if _holds_secret(text) else 0o666 & ~_files.umask()
            warnings, placed = [], text
            if before not in (None, _secrets.reveal(text, known).encode()) and before != committed:
                refuse_foreign(place, manifest, "write")
            shown = ("" if before is None else before.decode("utf-8", "replace"), text)
        else:
            source = os.path.normpath(os.path.join(worktree["source"], given["source"] or given["path"]))
            origin, base, fresh = _origin(worktree, place, source, manifest, before, committed)
            if not fresh:
                manifest = None
            default_mode = stat.S_IMODE(os.stat(origin).st_mode)
            values = _texts(given["values"])
            overrides = _texts(given["overrides"])
            warnings = from_main.left(base, given, place, fresh=fresh)
            placed = "".join(f"{key}={value}\n" for key, value in [*values.items(), *overrides.items()])
            text = _env_file.place(from_main.applied(base, given, place, fresh=fresh), values)
            if not fresh:
                there = _env_file.read(text)
                overrides = {key: value for key, value in overrides.items() if there.get(key) != value}
            text = _env_file.append(text, overrides) if overrides else text
            if _main_paths.is_structured(place):
                shown = ("", "" if before == text.encode() else from_main.told(source, base, text))
            else:
                shown = _shown(before, base, text, source, given, known)
        if _has_password(text, known):
            default_mode = 0o600
        if committed is not None and (_has_password(placed, known) or _holds_secret(placed)):
            warnings.append(_published(place))
        mode = default_mode if given["mode"] is None else _mode(given["mode"])
        after = _secrets.reveal(text, known).encode()
        is_seen = bool(manifest) and committed not in (None, after) and _kept_out.is_to_hide(place)
        return cls(worktree["path"], place, manifest, before, after, mode, *shown, warnings, is_seen)

    @classmethod
    def alone(cls, given: Params, known: t.Mapping[str, str]) -> _Wanted:
        """A file by itself: what it has already, with the values in it."""
        place = given["path"]
        refuse_contradiction(given)
        _refuse_no_file(place)
        before = _bytes(place) if os.path.lexists(place) else None
        base = "" if before is None else _decoded(before, place, f"the env file {place}")
        text = _env_file.place(base, _texts(given["values"]))
        if _has_password(text, known) or _holds_secret(text):
            default_mode = 0o600
        else:
            default_mode = 0o666 & ~_files.umask() if before is None else stat.S_IMODE(os.stat(place).st_mode)
        mode = default_mode if given["mode"] is None else _mode(given["mode"])
        shown = _shown(before, base, text, None, {**given, "overrides": {}}, known)
        return cls(None, place, None, before, _secrets.reveal(text, known).encode(), mode, *shown, [])

    def note(self) -> None:
        """Note that commands of the task have what this file says."""
        if self.worktree is None:
            return
        manifest = None if _main_paths.is_structured(self.place) else Manifest.around(self.place)
        if manifest and manifest.note_env_file(self.place):
            manifest.save()

    def write(self) -> None:
        if self.manifest:
            self.manifest = Manifest.around(self.place) or self.manifest
            self.manifest.note(self.place, text_signature(self.after))
            self.manifest.save()
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        _files.write(self.place, self.after, mode=self.mode)


def _refuse_no_file(place: str) -> None:
    if os.path.islink(place) or os.path.isdir(place):
        raise UserError(
            f"cannot write {place}: it is a {'symbolic link' if os.path.islink(place) else 'folder'}",
            hint=f"look at it, then remove it: rm {place}",
        )


def _has_password(text: str, known: t.Mapping[str, str]) -> bool:
    """Whether a text has the password of the task's database, or what stands for it."""
    return any(secret in text for secret in (_secrets.DATABASE_PASSWORD, *known.values()))


def _holds_secret(text: str) -> bool:
    """Whether a text has a password in a URL, or a value that is a secret by its key."""
    return bool(_URL_PASSWORD.search(text) or _SECRET_LINE.search(text))


def _published(place: str) -> str:
    """That a file which git tracks gets a secret."""
    way_out = "place it in a file that git ignores, or let git forget this file: git rm --cached"
    return f"git tracks {place}, which gets a secret: a commit would publish it; {way_out}"


def _origin(
    worktree: Params,
    place: str,
    source: str,
    manifest: Manifest | None,
    before: bytes | None,
    committed: bytes | None,
) -> tuple[str, str, bool]:
    """What a file begins with: where that lies, its text, and whether nobody has worked on it yet.

    It is what git has; else what somebody wrote or edited in the worktree, which stays his work; else the main tree's.
    """
    what = f"repository {worktree['name']}: the env file {source}"
    if before is None:
        return source, _text(source, what), True
    is_ours = bool(manifest and manifest.is_ours(place))
    if committed is not None and (is_ours or before == committed):
        return place, _decoded(committed, place, what), True
    origin = source if is_ours else place
    return origin, _text(origin, what), is_ours


def _shown(
    before: bytes | None,
    base: str,
    text: str,
    source: str | None,
    given: Params,
    known: t.Mapping[str, str],
) -> tuple[str, str]:
    """An env file before and after, as a diff may show it: what this project puts there, and no more."""
    former_base, after = _env_file.read(base), _env_file.read(text)
    keys = [
        *given["values"],
        *given["overrides"],
        *(key for key, value in after.items() if former_base.get(key) != value),
    ]
    read = {} if before is None else _env_file.read(before.decode("utf-8", "replace"))
    former = {key: read[key] for key in dict.fromkeys(keys) if key in read}
    revealed = {key: _secrets.reveal(after[key], known) for key in dict.fromkeys(keys)}
    return _lines(former), (f"# {source}, and in it:\n" if before is None and source else "") + _lines(revealed, former)


def _lines(values: t.Mapping[str, str], former: t.Mapping[str, str] | None = None) -> str:
    """Values as a diff may show them: what looks like a secret is masked, and told where it is another than before."""
    lines = []
    for key, value in values.items():
        shown = _secrets.MASK if _SECRET_KEY.search(key) else _URL_PASSWORD.sub(rf"\1:{_secrets.MASK}@", value)
        if shown != value and former and former.get(key, value) != value:
            shown += " (changed)"
        lines.append(f"{key}={shown}\n")
    return "".join(lines)


def _texts(given: t.Mapping[str, t.Any]) -> dict[str, str]:
    return {key: _as_text(key, value) for key, value in given.items()}


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
    return _decoded(_bytes(path), path, what)


def _decoded(content: bytes, path: str, what: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise EnvironmentFailure(
            f"{what} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}",
            hint=f"convert it: iconv -f ISO-8859-1 -t UTF-8 {path}",
        ) from error


def _committed(place: str) -> bytes | None:
    """What git's index has of a file; None where it tracks none."""
    folder, name = os.path.split(place)
    # The filters are those of a checkout, such as one that ends lines with CRLF.
    shown = _git.git(folder, "cat-file", "--filters", f":./{name}")
    return shown.stdout.encode("utf-8", "surrogateescape") if shown.ok else None
