# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of one worktree alone: what git runs there before a commit and a push, and then the project's own.

Private to this collection: may change without notice.

They lie in the worktree's private folder of the repository, and ``core.hooksPath`` in its own configuration leads
to them, so that no other worktree sees them, and they go with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import typing as t

from . import _files, _gates, _git, _hook, _mounts, _own_config, _program, _project_hooks
from ._door import Params, Result, warned
from ._errors import EnvironmentFailure
from ._git import Repository
from ._manifest import repository_of
from ._state import registry_path

FOLDER = "parallel-worktrees-hooks"
PROGRAM = "run.pyz"

OWN = {"pre-commit": "commit", "pre-merge-commit": "merge", "pre-push": "push"}
"""The hooks that have a part of ours, and what that is called in ``_hook``."""

OTHERS = (
    "applypatch-msg pre-applypatch post-applypatch prepare-commit-msg commit-msg post-commit pre-rebase post-checkout "
    "post-merge post-rewrite pre-auto-gc sendemail-validate"
).split()
OFTEN = ("post-index-change", "reference-transaction")
"""Git runs these at nearly every command, so they are passed on only where the project has them."""

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        **_gates.WORKTREES,
        "options": {
            **_gates.WORKTREES["options"],
            "submodules": {"type": "list", "elements": "str", "default": []},
        },
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "registry": {"type": "path"},
    "workspace": {"type": "str"},
    "task": {"type": "str", "required": True},
    "protected": {"type": "list", "elements": "str", "default": ["main", "master"]},
    "checks": _gates.CHECKS,
    **_gates.SURROUNDINGS,
}

SCRIPT = """\
#!/bin/sh
# Made by parallel.worktrees for this worktree alone: its own part, then the hook that the project has.
name=${0##*/}
where=%(former)s
if [ -z "$where" ]; then
    where=$(git config --type=path --show-scope --get-all core.hooksPath |
        sed -n '/^\\(system\\|global\\|local\\)\\t/s/^[a-z]*\\t//p' | tail -n 1)
fi
%(warning)s
[ -n "$where" ] || where=$(git rev-parse --git-common-dir)/hooks
%(own)s
[ -x "$where/$name" ] || exit 0
"""

WARNING = """\
[ -z "$where" ] || [ -e "$where" ] ||
    echo "parallel.worktrees: core.hooksPath is $where, which is not there: no hook of the project runs" >&2"""

ONWARD = 'exec "$where/$name" "$@"\n'
PUSH = """\
lines=$(cat)
%(check)s
if [ -n "$lines" ]; then
    printf '%%s\\n' "$lines" | %(run)s || exit
fi
"""
PUSH_ON = """\
if [ -n "$lines" ]; then
    printf '%s\\n' "$lines" | "$where/$name" "$@"
else
    exec "$where/$name" "$@" </dev/null
fi
"""


def operation(params: Params, *, check: bool) -> Result:
    """Give the worktrees their hooks, or take them away."""
    _gates.refused_where_unclear(params["checks"], [], "commit")
    actions: list[str] = []
    warnings: list[str] = []
    for name, path in _places(params["worktrees"]):
        if params["state"] == "absent":
            did = _remove(path, check=check)
        else:
            _provide(path, actions, warnings, check=check)
            did = _install(path, {**_settings(params), "worktree": {"name": name, "path": path}}, check=check)
        if did:
            actions.append(f"{'remove' if params['state'] == 'absent' else 'set'} the hooks of {path}")
    return {
        "changed": bool(actions),
        "actions": actions,
        "diff": [{"before": "", "after": "".join(line + "\n" for line in actions)}] if actions else [],
        **warned(*warnings),
    }


def _places(worktrees: t.Sequence[Params]) -> t.Iterator[tuple[str, str]]:
    """Each worktree and each submodule that has one, by name and folder."""
    for one in worktrees:
        yield one["name"], one["path"]
        for submodule in one["submodules"]:
            yield f"{one['name']}/{submodule}", os.path.join(one["path"], submodule)


def _settings(params: Params) -> dict[str, t.Any]:
    return {
        "registry": os.path.abspath(params["registry"] or registry_path()),
        "workspace": params["workspace"],
        "task": params["task"],
        "protected": params["protected"],
        "gate": _gates.settings_of(params),
    }


def _provide(path: str, actions: list[str], warnings: list[str], *, check: bool) -> None:
    """See to it that the project's own hooks are where a worktree looks for them, or say that they are not."""
    repository = repository_of(path)
    folder = _project_hooks.configured(path) if repository else None
    if repository is None or folder is None or os.path.lexists(folder):
        return
    source = _project_hooks.generated(repository, path, folder)
    if source is None:
        warnings.append(
            f"no hook of the project runs in {path}: core.hooksPath names {folder}, which is not there. Make it as the "
            "project does, such as by its installation, and run provision again"
        )
        return
    actions.append(f"copy the project's hooks to {folder} from {source}")
    if not check:
        _project_hooks.copy(source, path, folder)


def _install(path: str, settings: dict[str, t.Any], *, check: bool) -> bool:
    """Bring the hooks of one worktree to what they have to be; returns whether they were not."""
    admin = _git.admin_folder(path)
    if admin is None or not os.path.isdir(admin):
        if check and not os.path.exists(path):
            return True  # it is about to be made
        hint = "run provision again: it makes what is missing"
        raise EnvironmentFailure(f"{path} is no linked worktree, so it can have no hooks of its own", hint=hint)
    repository = Repository.of_admin(admin)
    folder = os.path.join(admin, FOLDER)
    with repository.locked():
        if not check:
            _undo_earlier(repository, admin)
        former = _own_config.given(repository, admin, "core.hooksPath")
        files = _files_of(repository, folder, settings, former, path)
        if _own_config.holds(admin, "hooksPath", folder) and _is_there(folder, files):
            return False
        if not check:
            _write(folder, files)
            _own_config.put(repository, admin, "hooksPath", folder)
    return True


def _remove(path: str, *, check: bool) -> bool:
    admin = _git.admin_folder(path)
    if admin is None or not os.path.isdir(os.path.join(admin, FOLDER)):
        return False
    if not check:
        repository = Repository.of_admin(admin)
        with repository.locked():
            remove(repository, path)
    return True


def remove(repository: Repository, path: str) -> None:
    """Take the hooks of a worktree away, so that those count that it had. The caller holds the lock."""
    admin = repository.admin_in(path)
    folder = os.path.join(admin, FOLDER)
    if not os.path.isdir(folder):
        return
    _undo_earlier(repository, admin)
    _own_config.take(repository, admin, "hooksPath")
    # Last: while it is there, a run that was killed before here is gone through again.
    _mounts.remove(folder)


def _undo_earlier(repository: Repository, admin: str) -> None:
    """An earlier version put ours in the place of what somebody had set for the worktree: put that back."""
    folder = os.path.join(admin, FOLDER)
    if _own_config.given(repository, admin, "core.hooksPath") != folder:
        return
    former = None
    with contextlib.suppress(EnvironmentFailure):
        former = _gates.load_settings(os.path.join(folder, _hook.SETTINGS)).get("former")
    file = ("config", "--file", os.path.join(admin, "config.worktree"))
    change = ("core.hooksPath", former) if former else ("--unset-all", "core.hooksPath")
    repository.must(*file, *change, doing=f"restoring the hooks that {admin} had")


def _files_of(
    repository: Repository, folder: str, settings: dict[str, t.Any], former: str | None, path: str
) -> dict[str, tuple[bytes, int]]:
    """The content and mode of every file of a worktree's hooks."""
    program = os.path.join(folder, PROGRAM)
    told = {**settings, "former": former}
    files = {
        _hook.SETTINGS: (json.dumps(told, indent=1, sort_keys=True).encode(), 0o600),
        PROGRAM: (_program.archive("_hook"), 0o644),
    }
    theirs = former or _project_hooks.configured(path) or os.path.join(repository.common, "hooks")
    often = (name for name in OFTEN if os.access(os.path.join(path, theirs, name), os.X_OK))
    names = [*OWN, *OTHERS, *often]
    files |= {name: (_script(name, program, former).encode(), 0o755) for name in names}
    return files


def _script(name: str, program: str, former: str | None) -> str:
    words = {"former": shlex.quote(former or ""), "own": "", "warning": WARNING if name in OWN else ""}
    python = shlex.quote(sys.executable)
    check = (
        f'[ -x {python} ] || {{ echo "parallel.worktrees: {sys.executable} is gone; run provision again" >&2; '
        "exit 1; }"
    )
    if name == "pre-push":
        words["own"] = PUSH % {"check": check, "run": _program.line(program, OWN[name])}
    elif name in OWN:
        words["own"] = f"{check}\n{_program.line(program, OWN[name])} </dev/null || exit"
    return SCRIPT % words + (PUSH_ON if name == "pre-push" else ONWARD)


def _is_there(folder: str, files: t.Mapping[str, tuple[bytes, int]]) -> bool:
    for name, (content, _mode) in files.items():
        try:
            with open(os.path.join(folder, name), "rb") as file:
                if file.read() != content:
                    return False
        except OSError:
            return False
    return sorted(os.listdir(folder)) == sorted(files)


def _write(folder: str, files: t.Mapping[str, tuple[bytes, int]]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, (content, mode) in files.items():
        _files.write(os.path.join(folder, name), content, mode=mode)
    for stray in set(os.listdir(folder)) - set(files):
        os.unlink(os.path.join(folder, stray))
