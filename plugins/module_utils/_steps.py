# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules in one call: what each of them does, without what a call costs.

Private to this collection: may change without notice.

Ansible takes 0.03 s for a call here and a round trip of 0.4 s and more for one over SSH, however little is done in it
(tests/benchmark/provision.py). What a task is given would take a dozen calls, most of which do far less than they cost.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
import typing as t

from . import (
    _agents,
    _databases,
    _env_files,
    _git,
    _hooks,
    _leases,
    _plan,
    _processes,
    _progress,
    _records,
    _setup,
    _shell,
    _worktree_files,
    _worktrees,
)
from ._arguments import validated
from ._door import Operation, Params, Result, together
from ._errors import UserError, WorktreesError, disk_expected

OPERATIONS: dict[str, tuple[Operation, dict[str, t.Any]]] = {
    "agent_file": (_agents.operation, _agents.ARGUMENT_SPEC),
    "env_file": (_env_files.operation, _env_files.ARGUMENT_SPEC),
    "git_worktree": (_worktrees.operation, _worktrees.ARGUMENT_SPEC),
    "port_lease": (_leases.operation, _leases.ARGUMENT_SPEC),
    "task_database": (_databases.operation, _databases.ARGUMENT_SPEC),
    "task_record": (_records.operation, _records.ARGUMENT_SPEC),
    "worktree_files": (_worktree_files.operation, _worktree_files.ARGUMENT_SPEC),
    "worktree_hooks": (_hooks.operation, _hooks.ARGUMENT_SPEC),
    "worktree_processes": (_processes.operation, _processes.ARGUMENT_SPEC),
    "worktree_setup": (_setup.operation, _setup.ARGUMENT_SPEC),
    "worktree_shell": (_shell.operation, _shell.ARGUMENT_SPEC),
}
"""What can be a step: the modules that give a task something on its own machine. None of them takes a secret."""

ARGUMENT_SPEC: dict[str, t.Any] = {
    "steps": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "module": {"type": "str", "choices": list(OPERATIONS), "required": True},
            "planned": {"type": "str", "choices": list(_plan.MAKERS)},
            "arguments": {"type": "dict", "default": {}},
        },
    },
    "plan": {"type": "dict", "options": _plan.ARGUMENT_SPEC},
    "holder": {"type": "dict", "options": _records.HOLDER},
}

PLAN: Params = {"name": "_Plan", "module": "task_record"}
"""What the plan is told as, where it fails and with -v."""


def operation(params: Params, *, check: bool) -> Result:
    """Note what is planned, then carry out the steps; the first that fails ends the call."""
    plan, holder = params["plan"], params["holder"]
    ready = [_ready(step, plan, holder) for step in params["steps"]]
    facts: Result = {}
    done: list[Result] = []
    try:
        with _git.remembering() if plan else contextlib.nullcontext():
            if plan:
                noted, facts = _note(plan, holder, check=check)
                done.append(noted)
            for step, given in zip(params["steps"], ready, strict=True):
                done.append(_carry_out(step, {**given, **_handed_on(step, given, done)}, check=check))
    except WorktreesError as error:
        is_changed = error.details.get("changed", False) or together(*done)["changed"]
        error.details |= {"results": done, "changed": is_changed}
        raise
    warnings = [text for one in done for text in one.get("warnings", ())]
    return {**together(*done), **facts, "results": done, **({"warnings": warnings} if warnings else {})}


def _note(plan: Params, holder: Params | None, *, check: bool) -> tuple[Result, Result]:
    """What was noted, and what is known of the task from now on. What any maker refuses, none begins."""
    with _timed(PLAN) as about:
        given = {key: _parameters(module, plan[key], None) for key, module in _plan.MAKERS.items()}

        def preflight(key: str) -> Result:
            return OPERATIONS[_plan.MAKERS[key]][0](given[key], check=True)

        # Git and the database have nothing to do with each other.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            planned = dict(zip(given, pool.map(preflight, given), strict=True))
        facts = _plan.facts(plan["facts"], planned["worktrees"]["worktrees"], planned["database"])
        noted = _plan.note(plan, **planned, facts=facts, holder=holder, check=check)
    return {**noted, **about}, {"facts": facts, "planned": {key: plan[key] for key in _plan.MAKERS}}


def _handed_on(step: Params, given: Params, done: t.Sequence[Result]) -> Params:
    """What the last step tells of those before it: what was written into databases that are gone."""
    if step["module"] != "task_record":
        return {}
    return {"written": [*given["written"], *(one for result in done for one in result.get("written", ()))]}


def _carry_out(step: Params, given: Params, *, check: bool) -> Result:
    run, _spec = OPERATIONS[step["module"]]
    # A database that is only begun starts its server in a process of its own, while there are no threads.
    is_begun = step["module"] == "task_database" and not given["wait"]
    watch = contextlib.nullcontext() if is_begun else _progress.told(lambda: str(step["name"]))
    with watch, _timed(step) as about:
        result = run(given, check=check)
    return {**result, **about}


@contextlib.contextmanager
def _timed(step: Params) -> t.Iterator[dict[str, t.Any]]:
    """What is told about a step: its name, its module, and when it was carried out, by the clock of this machine.

    It goes into the details of what fails, too.
    """
    about: dict[str, t.Any] = {"step": step["name"], "module": step["module"], "began": time.time()}
    try:
        with disk_expected():
            yield about
    except WorktreesError as error:
        error.details |= {**about, "ended": time.time()}
        raise
    about["ended"] = time.time()


def _parameters(module: str, arguments: Params, holder: Params | None) -> Params:
    """The validated parameters of a module's operation.

    :raises UserError: it does not take these arguments.
    """
    _run, spec = OPERATIONS[module]
    given = {**arguments, "holder": holder} if "holder" in spec else arguments
    return t.cast("Params", validated(module, spec, given).validated_parameters)


def _ready(step: Params, plan: Params | None, holder: Params | None) -> Params:
    with _timed(step):
        planned = (plan or {}).get(step["planned"]) if step["planned"] else {}
        if planned is None:
            raise UserError(f"there is no plan, which {step['module']} is to take its {step['planned']} from")
        return _parameters(step["module"], {**planned, **step["arguments"]}, holder)
