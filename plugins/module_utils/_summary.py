# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person is told of a task at the end: what it has, and what to type next.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import json
import shlex
import typing as t

from . import _written
from ._secrets import DATABASE_PASSWORD, MASK

COMMAND = "ansible-playbook parallel.worktrees.{verb} -e task={task}"


def provisioned(facts: dict[str, t.Any], *, style: str, check: bool, was_ready: bool) -> str:
    """The summary of a provisioned task.

    :arg style: ``text`` or ``json``.
    :arg was_ready: it was provisioned before.
    """
    facts = _masked(facts)
    if style == "json":
        return json.dumps({**facts, "state": _state("ready", check)}, indent=2, sort_keys=True)
    name = facts["name"]
    state = _state("ready", check) + (", registered before" if was_ready else "")
    rows = [("workspace", facts["workspace_file"])] if facts.get("workspace_file") else []
    rows += facts["worktrees"].items()
    lone = {repo: branch for repo, branch in facts.get("branches", {}).items() if repo not in facts["worktrees"]}
    rows += [(repo, f"branch {branch}, without a worktree") for repo, branch in lone.items()]
    rows.append(("branch", facts["branch"]))
    rows += [("taken up", f"{repo}: the branch, at {commit}") for repo, commit in facts.get("taken_up", {}).items()]
    if existing := facts.get("existing_branches"):
        rows.append(("note", f"the branch was there before the task, which never deletes it: {', '.join(existing)}"))
    if facts["slot"] is not None:
        ports = ", ".join(f"{port} {number}" for port, number in facts["ports"].items())
        rows.append(("slot", f"{facts['slot']}{f' ({ports})' if ports else ''}"))
    database = facts["database"]
    if database.get("url"):
        rows.append(("database", f"{database['url']} ({database['backend']})"))
        rows.append(("password", f"in {database['password_file']}"))
    first = next(iter(facts["worktrees"].values()), None)
    if first:
        rows.append(("next", f"cd {shlex.quote(first)}"))
    rows.append(("tear down", COMMAND.format(verb="teardown", task=name)))
    return f"{name}: {state}\n" + _aligned(rows)


def torn_down(facts: dict[str, t.Any], *, style: str, check: bool) -> str:
    """The summary of a task that was torn down.

    :arg facts: the task's own, with ``removed``, the result of the removal of its worktrees; ``written``, what was
        written into its databases, which are gone (:mod:`._written`); and ``kept``, the plan of a database that stays.
    """
    if style == "json":
        facts = {**facts, "kept": facts["kept"] and {key: facts["kept"][key] for key in ("backend", "name")}}
        return json.dumps({**_masked(facts), "state": _state("absent", check)}, indent=2, sort_keys=True)
    removed = facts.get("removed") or {}
    rows = [("saved", f"{one['name']}: {one['ref']}\n{one['restore']}") for one in removed.get("saved") or []]
    rows += [("pushed", f"{one['name']}: {one['branch']} to {one['remote']}") for one in removed.get("pushed") or []]
    rows += [("worktree", f"{path} stays") for path in removed.get("left") or []]
    rows += [
        ("trash", f"{path} cannot be removed by this user; remove it: sudo rm -r {shlex.quote(path)}")
        for path in removed.get("trash") or []
    ]
    rows += [("branch", f"{branch} stays") for branch in removed.get("branches") or []]
    rows += _database_rows(facts, check=check)
    rows += [("note", f"not deleted: {note}") for note in removed.get("notes") or []]
    return f"{facts['name']}: {_state('torn down', check)}\n" + _aligned(rows)


def _database_rows(facts: dict[str, t.Any], *, check: bool) -> list[tuple[str, str]]:
    """What has become of data that were nowhere else."""
    gone = "would be gone" if check else "gone"
    rows = [("database", f"{one['database']}, {gone}: {_written.told(one)}") for one in facts.get("written") or []]
    if kept := facts.get("kept"):
        again = COMMAND.format(verb="provision", task=facts["name"])
        rows.append(("database", f"{kept['name']} ({kept['backend']}) stays; to use it again: {again}"))
    return rows


def nothing_to_tear_down(names: t.Mapping[str, str], *, style: str) -> str:
    """For tasks that were torn down before; ``names`` maps them to how long ago."""
    if style == "json":
        return json.dumps([{"name": name, "state": "absent"} for name in names])
    return "".join(f"{name}: nothing to tear down, it was torn down {ago} ago\n" for name, ago in names.items())


def _state(word: str, check: bool) -> str:
    return f"would be {word}" if check else word


def _aligned(rows: t.Sequence[tuple[str, str]]) -> str:
    width = max((len(label) for label, _text in rows), default=0)
    indent = "\n" + " " * (width + 4)
    return "".join(f"  {label.ljust(width)}  {text.replace(chr(10), indent)}\n" for label, text in rows)


def _masked(facts: dict[str, t.Any]) -> dict[str, t.Any]:
    text = json.dumps(facts, default=str).replace(DATABASE_PASSWORD, MASK)
    return t.cast("dict[str, t.Any]", json.loads(text))
