# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up commands of a worktree, each run at most once, unless what it is run on has changed.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import concurrent.futures
import glob
import hashlib
import itertools
import os
import typing as t

from . import _commands, _exec, _files, _git, _secrets
from ._door import Params, Result
from ._errors import EnvironmentFailure, WorktreesError
from ._manifest import LOGS, Manifest
from ._placing import inside

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "setup": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "command": {"type": "str", "required": True},
                    "folder": {"type": "str", "default": "."},
                    "inputs": {"type": "list", "elements": "str", "default": []},
                    "parallel": {"type": "bool", "default": False},
                },
            },
        },
    },
    "variables": {"type": "dict", "default": {}},
    "password_file": {"type": "path", "no_log": False},
}


AT_ONCE = 8
"""How many commands that may run at the same time do."""

Step = tuple[Params, Params]
"""A worktree, and one of its commands."""


def operation(params: Params, *, check: bool) -> Result:
    """Run what did not run yet, in order; the output is kept in the worktree's git directory."""
    to_run: list[Step] = []
    for worktree in params["worktrees"]:
        manifest = Manifest.of(worktree["path"])
        ran = manifest.ran if manifest else []
        to_run += [(worktree, given) for given in worktree["setup"] if _mark(worktree, given) not in ran]
    actions = [f"run '{given['command']}' in {worktree['name']}" for worktree, given in to_run]
    if not check:
        known = _exec.known_secrets(params["password_file"])
        for is_parallel, steps in itertools.groupby(to_run, lambda step: bool(step[1]["parallel"])):
            _run_all(list(steps), params, known, at_once=AT_ONCE if is_parallel else 1)
    return {
        "changed": bool(to_run),
        "actions": actions,
        "diff": [{"before": "", "after": "".join(line + "\n" for line in actions)}] if to_run else [],
    }


def _key(given: Params) -> str:
    return hashlib.sha256(f"{given['folder']}\0{given['command']}".encode()).hexdigest()[:16]


def _mark(worktree: Params, given: Params) -> str:
    """What tells that a command has run: its key and, where it is run on something, what that is now."""
    folder = inside(worktree["path"], given["folder"])
    digest = hashlib.sha256()
    for pattern in given["inputs"]:
        inside(worktree["path"], os.path.join(given["folder"], pattern))
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern), recursive=True, include_hidden=True)):
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{os.path.relpath(path, folder)}\0{content}\0".encode("utf-8", "surrogateescape"))
    return f"{_key(given)}:{digest.hexdigest()[:16]}" if given["inputs"] else _key(given)


def _run_all(steps: list[Step], params: Params, known: t.Mapping[str, str], *, at_once: int) -> None:
    """Run commands, at most so many at a time; one that fails does not stop those that have begun."""
    failures: list[WorktreesError] = []
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        # One by one, the next is begun when the one before has succeeded.
        for begun in [steps] if at_once > 1 else [[step] for step in steps]:
            running = {pool.submit(_run, *step, params, known): step for step in begun}
            for done in concurrent.futures.as_completed(running):
                try:
                    done.result()
                except WorktreesError as error:
                    failures.append(error)
                else:
                    _note(*running[done])
            if failures:
                break
    if len(failures) > 1:
        raise EnvironmentFailure(
            f"{len(failures)} set-up commands failed:\n" + "\n".join(failure.message for failure in failures),
            hint="\n      ".join(str(failure.hint) for failure in failures),
        )
    if failures:
        raise failures[0]


def _run(worktree: Params, given: Params, params: Params, known: t.Mapping[str, str]) -> None:
    folder = inside(worktree["path"], given["folder"])
    variables = _exec.variables(params["variables"], params["password_file"], folder)
    done = _commands.run_line(given["command"], cwd=folder, env=variables)
    output = _secrets.mask(done.stdout + done.stderr, known)
    hint = "mend it and run provision again: it goes on here"
    admin = _git.admin_folder(worktree["path"])
    if admin:
        log = os.path.join(admin, LOGS, _key(given) + ".log")
        os.makedirs(os.path.dirname(log), exist_ok=True)
        _files.write(log, f"$ {given['command']}\n{output}".encode("utf-8", "replace"), mode=0o600)
        hint += f"; all of its output: {log}"
    if not done.ok:
        raise EnvironmentFailure(
            f"repository {worktree['name']}: the set-up command '{given['command']}' "
            + done.ending(output, _commands.NEXT_LINE),
            hint=hint,
        )


def _note(worktree: Params, given: Params) -> None:
    """Note that a command has run; on what it left, since an installation may well write its own lock file."""
    manifest = Manifest.of(worktree["path"])
    if manifest:
        manifest.ran = [mark for mark in manifest.ran if mark.partition(":")[0] != _key(given)]
        manifest.ran.append(_mark(worktree, given))
        manifest.save()
