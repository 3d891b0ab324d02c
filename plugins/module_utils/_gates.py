# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates: named checks that a worktree has to pass, before a commit, on demand, before integration and teardown.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
import typing as t

from . import _commands, _exec, _files, _git, _kept_out, _pg_server, _postgres, _secrets, _top_level
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError
from ._manifest import LOGS
from ._placing import inside

STAGES = ("commit", "gate", "integration", "teardown")

CHECK: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "command": {"type": "str"},
    "folder": {"type": "str", "default": "."},
    "databases": {"type": "str"},
    "git": {"type": "str", "choices": ["clean", "attached"]},
    "repos": {"type": "list", "elements": "str"},
    "stages": {"type": "list", "elements": "str", "choices": list(STAGES), "default": ["gate", "integration"]},
    "warns": {"type": "list", "elements": "str", "choices": list(STAGES), "default": []},
}
KINDS = ("command", "databases", "git")

WORKTREES: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "required": True,
    "options": {
        "name": {"type": "str", "required": True},
        "path": {"type": "path", "required": True},
    },
}

SURROUNDINGS: dict[str, t.Any] = {
    "variables": {"type": "dict", "default": {}},
    "password_file": {"type": "path", "no_log": False},
    "database": {"type": "dict", "default": {}},
}
"""What the checks of a task find around them: its environment, and the server of its databases."""

CHECKS: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": CHECK,
    "required_one_of": [KINDS],
    "mutually_exclusive": [KINDS],
}

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": WORKTREES,
    "checks": CHECKS,
    "stage": {"type": "str", "choices": list(STAGES), "default": "gate"},
    **SURROUNDINGS,
    "drop_leaked": {"type": "bool", "default": False},
    "title": {"type": "str"},
}

LEAKED = """
select datname from pg_catalog.pg_database
where datname like %(pattern)s and not datistemplate and datname <> all (%(spared)s)
and coalesce(pg_catalog.shobj_description(datdba, 'pg_authid'), '') not like '{"owner"%%'
order by datname
"""
"""What belongs to a role with our mark is the database of a task, whatever it is called."""

PASSED, WARNED, FAILED, SKIPPED = "passed", "warned", "failed", "skipped"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one check ended.

    :ivar repo: where it looked; None for what concerns the task as a whole.
    :ivar text: what it found; empty where it passed.
    :ivar log: the file with all that a command printed.
    """

    name: str
    repo: str | None
    verdict: str
    seconds: float
    text: str = ""
    log: str | None = None

    def __str__(self) -> str:
        where = f"{self.repo}: " if self.repo else ""
        first, *rest = self.text.splitlines() or [""]
        why = f": {first}" if first else ""
        return "\n".join([f"{where}{self.name} {self.verdict}{why}", *(f"    {line}" for line in rest)])


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What checks find around them.

    :ivar database: the facts of the task's database; empty where it has none.
    """

    variables: t.Mapping[str, str]
    known: t.Mapping[str, str]
    database: t.Mapping[str, t.Any]

    @classmethod
    def of(cls, params: Params) -> Surroundings:
        secret = params["password_file"]
        variables = _exec.variables(params["variables"], secret)
        return cls(variables, _exec.known_secrets(secret), params["database"] or {})


def operation(params: Params, *, check: bool) -> Result:
    """Let the worktrees pass a gate; refused where one of its checks fails."""
    stage, worktrees = params["stage"], params["worktrees"]
    chosen = refused_where_unclear(params["checks"], [one["name"] for one in worktrees], stage)
    missing = [one["path"] for one in worktrees if not os.path.isdir(one["path"])]
    if missing:
        hint = "run provision again: it makes what is missing"
        raise EnvironmentFailure(f"there is no folder {', '.join(missing)}", hint=hint)
    _top_level.check(one["path"] for one in worktrees)
    title = params["title"] or "the gate"
    if check:
        actions = [f"check '{one['name']}'" for one in chosen]
        return {"changed": False, "diff": [], "actions": actions, "checks": []}
    around = Surroundings.of(params)
    outcomes, dropped = run(chosen, worktrees, stage, around, drop_leaked=params["drop_leaked"])
    told = "".join(f"  {outcome}\n".replace("\n    ", "\n      ") for outcome in outcomes)
    checks = [dataclasses.asdict(outcome) for outcome in outcomes]
    if failed := [outcome for outcome in outcomes if outcome.verdict == FAILED]:
        raise red(title, failed, checks=checks, changed=bool(dropped))
    return {
        "changed": bool(dropped),
        "diff": [],
        "actions": [f"drop the leaked database {name}" for name in dropped],
        "checks": checks,
        "summary": f"{title}: " + (f"green\n{told}" if outcomes else f"no check is meant for the stage {stage}\n"),
    }


def red(title: str, failed: t.Sequence[Outcome], **details: t.Any) -> UserError:
    """The refusal of a gate, with each check that failed."""
    logs = [outcome.log for outcome in failed if outcome.log]
    hint = f"all of its output: {logs[0]}" if logs else "mend it, and run this again"
    if any("leaked" in outcome.text for outcome in failed):
        hint = "drop them: ansible-playbook parallel.worktrees.gate -e task=TASK -e drop_leaked=true"
    return UserError(
        f"{title}: {len(failed)} check{'s' * (len(failed) > 1)} failed:\n  "
        + "\n  ".join(str(outcome) for outcome in failed),
        hint=hint,
        **details,
    )


def refused_where_unclear(checks: t.Sequence[Params], names: t.Sequence[str], stage: str) -> list[Params]:
    """The checks of a stage.

    :raises UserError: two have one name, or one of all checks cannot be meant.
    """
    called = [one["name"] for one in checks]
    if twins := sorted({name for name in called if called.count(name) > 1}):
        raise UserError(
            f"gate_checks has {', '.join(twins)} more than once",
            hint="give each check a name of its own in gate_checks",
        )
    for one in checks:
        # Of two characters that stand for themselves at least: "%" would mean every database.
        if one["databases"] is not None and len(re.sub(r"[%_]", "", one["databases"])) < 2:
            raise UserError(
                f"the check {one['name']!r} in gate_checks has databases: {one['databases']!r}, which means nearly all",
                hint="write a pattern of SQL's LIKE with a part that only leaked databases have: test_db_%",
            )
    return [
        one
        for one in checks
        if stage in one["stages"] and (one["repos"] is None or any(name in one["repos"] for name in names))
    ]


def run(
    checks: t.Sequence[Params],
    worktrees: t.Sequence[t.Mapping[str, str]],
    stage: str,
    around: Surroundings,
    *,
    drop_leaked: bool = False,
) -> tuple[list[Outcome], list[str]]:
    """Run checks in order; returns how each ended, and the databases that were dropped.

    After a command that failed, the later ones of that worktree are skipped: what they say would mean little.
    """
    outcomes: list[Outcome] = []
    dropped: list[str] = []
    broken: set[str] = set()
    for one in checks:
        if one["databases"] is not None:
            began = time.monotonic()
            gone, verdict, text = _look_for_leaked(one, stage, around, drop=drop_leaked)
            dropped += gone
            outcomes.append(Outcome(one["name"], None, verdict, _since(began), text))
            continue
        if not worktrees:
            outcomes.append(Outcome(one["name"], None, SKIPPED, 0.0, "the task has no worktree"))
        for worktree in worktrees:
            if one["repos"] is not None and worktree["name"] not in one["repos"]:
                continue
            outcome = _check(one, worktree, stage, around, is_broken=worktree["name"] in broken)
            outcomes.append(outcome)
            if one["command"] is not None and outcome.verdict == FAILED:
                broken.add(worktree["name"])
    return outcomes, dropped


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)


def _verdict(one: Params, stage: str) -> str:
    return WARNED if stage in one["warns"] else FAILED


def _check(one: Params, worktree: t.Mapping[str, str], stage: str, around: Surroundings, *, is_broken: bool) -> Outcome:
    name, repo, path, began = one["name"], worktree["name"], worktree["path"], time.monotonic()
    log = None
    if one["command"] is not None:
        if is_broken:
            return Outcome(name, repo, SKIPPED, 0.0, "a command before it failed")
        text, log = _run_command(one, path, stage, around)
    elif one["git"] == "clean":
        text = dirt(path)
    else:
        text = _detached(path)
    return Outcome(name, repo, _verdict(one, stage) if text else PASSED, _since(began), text, log)


def _detached(path: str) -> str:
    """Which of a worktree and those of its submodules are at no branch, in words."""
    trees = [tree for tree in (path, *_git.submodule_trees(path)) if not _git.is_attached(tree)]
    return "; ".join(
        f"{tree} is at no branch (detached HEAD); make one: git -C {tree} switch -c NAME" for tree in trees
    )


def _run_command(one: Params, path: str, stage: str, around: Surroundings) -> tuple[str, str | None]:
    """Why a command failed, or nothing; and where all of its output is."""
    folder = inside(path, one["folder"])
    if not os.path.isdir(folder):
        return f"there is no folder {folder}", None
    done = _commands.run_line(one["command"], cwd=folder, env=_exec.guarded(around.variables, folder))
    output = _secrets.mask(done.stdout + done.stderr, around.known)
    log = None
    if admin := _git.admin_folder(path):
        log = os.path.join(admin, LOGS, f"{stage}-{re.sub(r'[^A-Za-z0-9]+', '-', one['name'])}.log")
        os.makedirs(os.path.dirname(log), exist_ok=True)
        _files.write(log, f"$ {one['command']}\n{output}".encode("utf-8", "replace"), mode=0o600)
    if done.ok:
        return "", log
    return f"'{one['command']}' {done.ending(output, _commands.NEXT_LINE)}", log


def dirt(path: str) -> str:
    """What is in a worktree and not committed, in words; nothing where all is."""
    all_of_it = ("--untracked-files=all", "--ignore-submodules=none", "--no-renames")  # whatever is configured
    done = _git.git(path, "status", "--porcelain", "-z", *all_of_it)
    if not done.ok:
        raise done.failure(f"looking for what is not committed in {path}")
    entries = [(entry[:1], entry[3:]) for entry in done.stdout.split("\0") if entry]
    files = [file for staged, file in entries if not (staged == " " and _kept_out.is_ours(path, file))]
    told = [f"not committed: {', '.join(files[:20])}{' and more' if len(files) > 20 else ''}"] if files else []
    if hidden := _kept_out.edited(path):
        names = ", ".join(hidden)
        told.append(f"edited, and not shown by git: {names}; let git show it: {_kept_out.way_back(path, hidden)}")
    return "; ".join(told)


# --- leaked databases -------------------------------------------------------------------------------------------


def _look_for_leaked(one: Params, stage: str, around: Surroundings, *, drop: bool) -> tuple[list[str], str, str]:
    """What was dropped, the verdict, and what it is about. Where nobody can tell, it fails: that is not a no."""
    facts = around.database
    if not facts.get("url"):
        return [], FAILED, f"the task has no database server to look for {one['databases']} in"
    psycopg2 = _postgres.driver()
    password = around.known.get(_secrets.DATABASE_PASSWORD)
    address = _postgres.Address(facts["host"], int(facts["port"]), facts["user"], facts["name"])
    dropped: list[str] = []
    try:
        with contextlib.closing(_postgres.connect(address, password)) as connection, connection.cursor() as cursor:
            cursor.execute(LEAKED, {"pattern": one["databases"], "spared": [facts["name"], *facts.get("spared", [])]})
            leaked = [row[0] for row in cursor.fetchall()]
            for name in leaked if drop else ():
                cursor.execute(_pg_server.compose("drop database if exists {} with (force)", name))
                dropped.append(name)
    except psycopg2.Error as error:
        did = f"dropped {', '.join(dropped)}; then " if dropped else ""
        return dropped, FAILED, f"{did}the server cannot be asked: {str(error).strip()}"
    if not leaked:
        return [], PASSED, ""
    if drop:
        return dropped, PASSED, f"dropped {', '.join(dropped)}"
    return [], _verdict(one, stage), f"leaked: {', '.join(leaked)}"


# --- as a hook --------------------------------------------------------------------------------------------------


def settings_of(params: Params) -> dict[str, t.Any]:
    """What a hook needs to know to run the checks of its stage; no secret is in it."""
    return {
        "checks": [one for one in params["checks"] if "commit" in one["stages"]],
        **{key: params[key] for key in SURROUNDINGS},
    }


def at_commit(settings: t.Mapping[str, t.Any], worktree: t.Mapping[str, str]) -> list[Outcome]:
    """The checks before a commit in a worktree."""
    checks = [one for one in settings["checks"] if one["repos"] is None or worktree["name"] in one["repos"]]
    if not checks:
        return []
    return run(checks, [worktree], "commit", Surroundings.of(dict(settings)))[0]


def load_settings(path: str) -> dict[str, t.Any]:
    """The settings that lie beside a hook.

    :raises EnvironmentFailure: they are not there, or damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return t.cast("dict[str, t.Any]", json.load(file))
    except (OSError, ValueError) as error:
        hint = "run provision again: it makes what is missing"
        raise EnvironmentFailure(f"cannot read {path}: {error}", hint=hint) from error


def failures(outcomes: t.Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.verdict == FAILED]
