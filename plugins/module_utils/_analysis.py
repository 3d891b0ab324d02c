# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Analysis: named checks over a worktree in the background, to which it is read-only, and a report of each.

Private to this collection: may change without notice.

They are run by a program of their own, which lives on when the module has ended. Its reports lie in the worktree's
private folder of the repository, where the checks cannot write either, and go with it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import typing as t

from . import (
    _commands,
    _exec,
    _files,
    _gates,
    _git,
    _guard,
    _mounts,
    _program,
    _readonly,
    _secrets,
    _task_variables,
    _top_level,
)
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError, WorktreesError
from ._manifest import LOGS, repository_of
from ._placing import inside
from ._state import state_folder

ARGUMENT_SPEC: dict[str, t.Any] = {
    "task": {"type": "str", "required": True},
    "worktrees": _gates.WORKTREES,
    "checks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "command": {"type": "str", "required": True},
            "folder": {"type": "str", "default": "."},
            "repos": {"type": "list", "elements": "str"},
        },
    },
    "only": {"type": "list", "elements": "str"},
    "variables": {"type": "dict", "default": {}},
    "password_file": {"type": "path", "no_log": False},
    "image": {"type": "str"},
    "timeout": {"type": "int", "default": 3600},
    "wait": {"type": "bool", "default": False},
    "start": {"type": "bool", "default": True},
}

FOLDER = "analysis"
PROGRAM, TASKS, SUMMARY = "run.pyz", "given.json", "summary"
RUNNING, DONE, INTERRUPTED, NONE = "running", "done", "interrupted", "none"
WRITES = ("Read-only file system", "EROFS")
OVER = 124
"""What timeout(1) ends with when the time was over."""


def operation(params: Params, *, check: bool) -> Result:
    """Begin the checks of a task, or tell how far they are."""
    worktrees = [{**one, "folder": _folder(one)} for one in params["worktrees"]]
    if not worktrees:
        raise UserError(f"task {params['task']} has no worktree to analyze", hint="status shows what it has")
    actions = []
    if params["start"]:
        _top_level.check(one["path"] for one in worktrees)
        kind = _readonly.choose(params["image"])
        for one in worktrees:
            given = _given(one, params, kind)
            if given["checks"] and _state(one["folder"])[0] != RUNNING:
                names = ", ".join(each["name"] for each in given["checks"])
                actions.append(f"analyze {one['path']}: {names}")
                if not check:
                    _start(one["folder"], given)
        if not actions and not any(_state(one["folder"])[0] == RUNNING for one in worktrees):
            raise UserError("there is no check to run", hint="name some in the workspace: analysis_checks")
    if params["wait"] and not check:
        for one in worktrees:
            _wait(one["folder"])
    found = [(one, *_state(one["folder"])) for one in worktrees]
    return {
        "changed": bool(actions),
        "actions": actions,
        "diff": [],
        "reports": [{"repo": one["name"], **report} for one, _state_, reports in found for report in reports],
        "states": {one["name"]: state for one, state, _reports in found},
        "summary": "".join(_text(params["task"], one, state, reports) for one, state, reports in found),
    }


def _folder(worktree: t.Mapping[str, str]) -> str:
    admin = _git.admin_folder(worktree["path"])
    if admin is None or not os.path.isdir(admin):
        raise EnvironmentFailure(
            f"{worktree['path']} is no linked worktree", hint="run provision again: it makes what is missing"
        )
    return os.path.join(admin, LOGS, FOLDER)


def _given(worktree: t.Mapping[str, str], params: Params, kind: str) -> dict[str, t.Any]:
    """What the program is told; the password it reads itself."""
    checks = [one for one in params["checks"] if one["repos"] is None or worktree["name"] in one["repos"]]
    called = [one["name"] for one in checks]
    if unknown := sorted(set(params["only"] or []) - {one["name"] for one in params["checks"]}):
        raise UserError(
            f"there is no check {', '.join(unknown)} in analysis_checks",
            hint=f"choose from: {', '.join(one['name'] for one in params['checks']) or 'none'}",
        )
    if twins := sorted({name for name in called if [_file(one) for one in called].count(_file(name)) > 1}):
        raise UserError(f"analysis_checks has {', '.join(twins)} more than once", hint="give each a name of its own")
    if taken := [name for name in called if _file(name) == f"{SUMMARY}.txt"]:
        raise UserError(
            f"analysis_checks has a check {taken[0]!r}, which is what the file about all of them is called",
            hint="give it another name",
        )
    for one in checks:
        inside(worktree["path"], one["folder"])
    admin = str(_git.admin_folder(worktree["path"]))
    return {
        "task": params["task"],
        "worktree": worktree["path"],
        # Those of the task's other repositories too: what is over one of them is not to write into another.
        "folders": [folder for each in params["worktrees"] for folder in _trees(each)],
        "checks": [one for one in checks if not params["only"] or one["name"] in params["only"]],
        "kind": kind,
        "scratch": os.path.join(state_folder(), FOLDER, hashlib.sha256(os.fsencode(admin)).hexdigest()[:16]),
        **{key: params[key] for key in ("variables", "password_file", "image", "timeout")},
    }


def _trees(worktree: t.Mapping[str, str]) -> list[str]:
    """A worktree, its repository, and the main tree of that."""
    repository = repository_of(worktree["path"])
    return [worktree["path"], *([repository.common, repository.path] if repository else [])]


def _file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name) + ".txt"


def _start(folder: str, given: dict[str, t.Any]) -> None:
    """Start the program, which holds the lock of the folder for as long as it lives."""
    os.makedirs(folder, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                return  # another call was faster
            raise
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        _mounts.remove(given["scratch"])  # of one that was killed
        _files.write(os.path.join(folder, PROGRAM), _program.archive("_analysis"), mode=0o600)
        _files.write(os.path.join(folder, TASKS), json.dumps(given).encode(), mode=0o600)
        _note(folder, [_report(one["name"], folder) for one in given["checks"]])
        subprocess.Popen(  # pylint: disable=ansible-bad-function # it outlives the call
            [sys.executable, os.path.join(folder, PROGRAM)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[handle],
            start_new_session=True,
        )
    finally:
        os.close(handle)


def _wait(folder: str) -> None:
    if os.path.isdir(folder):
        with _files.locked(folder):
            pass


def _state(folder: str) -> tuple[str, list[dict[str, t.Any]]]:
    """How far the checks are, and what each has found."""
    try:
        with open(os.path.join(folder, f"{SUMMARY}.json"), encoding="utf-8") as file:
            reports = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return NONE, []
    if _files.is_locked(folder):
        return RUNNING, reports
    with (
        contextlib.suppress(FileNotFoundError),
        open(os.path.join(folder, f"{SUMMARY}.json"), encoding="utf-8") as file,
    ):
        reports = json.load(file)  # it may have ended meanwhile
    return (INTERRUPTED if any(one["verdict"] == RUNNING for one in reports) else DONE), reports


def _report(
    name: str, folder: str, verdict: str = RUNNING, why: str = "", seconds: float | None = None
) -> dict[str, t.Any]:
    file = os.path.join(folder, _file(name))
    return {"name": name, "verdict": verdict, "why": why, "seconds": seconds, "file": file}


def _text(task: str, worktree: t.Mapping[str, str], state: str, reports: t.Sequence[dict[str, t.Any]]) -> str:
    words = {
        RUNNING: "analysis is running",
        DONE: "analyzed",
        INTERRUPTED: "analysis was killed",
        NONE: "not analyzed",
    }
    lines = [f"{task}: {words[state]}, {worktree['name']}"]
    for one in reports:
        verdict = one["verdict"] if state != INTERRUPTED or one["verdict"] != RUNNING else "killed"
        seconds = "" if one["seconds"] is None else f" after {one['seconds']} s"
        why = f": {one['why']}" if one["why"] else ""
        lines.append(f"  {one['name']}  {verdict}{seconds}{why}\n    {one['file']}")
    return "\n".join(lines) + "\n"


# --- the program that runs them ---------------------------------------------------------------------------------


def main(_arguments: t.Sequence[str]) -> int:
    """Run all checks at once; it is the archive in the folder of the reports."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    given = _gates.load_settings(os.path.join(folder, TASKS))
    reports = {one["name"]: _report(one["name"], folder) for one in given["checks"]}
    for one in given["checks"]:
        os.makedirs(_scratch(one, given), mode=0o700)
    with concurrent.futures.ThreadPoolExecutor(max(1, len(reports))) as pool:
        running = [pool.submit(_analyze, one, given, folder) for one in given["checks"]]
        for ended in concurrent.futures.as_completed(running):
            report = ended.result()
            reports[report["name"]] = report
            _note(folder, list(reports.values()))
    with contextlib.suppress(WorktreesError):  # the next call removes it
        _mounts.remove(given["scratch"])
    worktree = {"name": os.path.basename(given["worktree"])}
    text = _text(given["task"], worktree, DONE, list(reports.values()))
    _files.write(os.path.join(folder, f"{SUMMARY}.txt"), text.encode("utf-8", "replace"), mode=0o600)
    return 0


def _scratch(one: Params, given: Params) -> str:
    """The folder that a check has for itself and may write to."""
    return os.path.join(given["scratch"], _file(one["name"]).removesuffix(".txt"))


def _note(folder: str, reports: t.Sequence[dict[str, t.Any]]) -> None:
    _files.write(os.path.join(folder, f"{SUMMARY}.json"), json.dumps(reports, indent=1).encode(), mode=0o600)


@dataclasses.dataclass(frozen=True)
class _Ended:
    verdict: str
    why: str


def _analyze(one: Params, given: Params, folder: str) -> dict[str, t.Any]:
    """Run one check, and write its report."""
    started, began = time.localtime(), time.monotonic()
    known: t.Mapping[str, str] = {}
    scratch = _scratch(one, given)
    try:
        known = _exec.known_secrets(given["password_file"])
        done = _run(one, given, scratch, _exec.variables(given["variables"], given["password_file"]))
        output, ended = _secrets.mask(done.stdout + done.stderr, known), _ended(done, given["timeout"])
    except EnvironmentFailure as error:
        output, ended = "", _Ended(_gates.FAILED, error.message)
    finally:
        with contextlib.suppress(WorktreesError):
            _mounts.remove(scratch)
    seconds = round(time.monotonic() - began, 1)
    report = _report(one["name"], folder, ended.verdict, ended.why, seconds)
    head = {
        "check": one["name"],
        "task": given["task"],
        "worktree": given["worktree"],
        "commit": _git.git(given["worktree"], "rev-parse", "HEAD").stdout.strip() or "none",
        "command": one["command"],
        "started": time.strftime("%Y-%m-%d %H:%M:%S", started),
        "seconds": str(seconds),
        "verdict": f"{ended.verdict}: {ended.why}" if ended.why else ended.verdict,
    }
    text = "".join(f"{label:<8}  {value}\n" for label, value in head.items()) + "\n" + output
    _files.write(report["file"], text.encode("utf-8", "replace"), mode=0o600)
    return report


def _run(one: Params, given: Params, scratch: str, variables: t.Mapping[str, str]) -> _commands.Completed:
    is_contained = given["kind"] == "container"
    folder = inside(given["worktree"], one["folder"])
    # Whatever a tool wants to keep has a place elsewhere.
    usual = {} if is_contained else {"TMPDIR": scratch, "XDG_CACHE_HOME": scratch, "PYTHONDONTWRITEBYTECODE": "1"}
    variables = {**usual, **_task_variables.in_folder(variables, folder)}
    argv = _readonly.wrapped(
        given["kind"],
        given["folders"],
        folder,
        (*_commands.SHELL, one["command"]),
        image=given["image"],
    )
    stdin = None
    if is_contained:  # what is among the arguments or the environment of a container, anybody can read
        # Where the image names no locale, text would be taken for ASCII.
        lines = ['export LANG="${LANG:-C.UTF-8}"\n']
        lines += [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
        if guard := _guard.of(folder):
            lines.append(f'export PATH={shlex.quote(guard)}:"$PATH"\n')
        stdin, variables = "".join(lines).encode(), {}
    else:
        variables = _exec.guarded(variables, folder)
    within = ("timeout", "--kill-after=5", str(given["timeout"]))
    return _commands.run((*within, *argv), cwd="/", env=variables, stdin=stdin, for_task=True)


def _ended(done: _commands.Completed, timeout: int) -> _Ended:
    wrote = any(word in done.stdout + done.stderr for word in WRITES)
    if done.ok:
        return _Ended(_gates.PASSED, "it tried to write, which it cannot" if wrote else "")
    if done.code == OVER:
        return _Ended(_gates.FAILED, f"it was ended after {timeout} s")
    if wrote:
        return _Ended(_gates.FAILED, f"it tried to write, and the worktree is read-only to it (ended with {done.code})")
    return _Ended(_gates.FAILED, f"ended with {done.code}")
