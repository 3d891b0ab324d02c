# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's side of its branch: the password, which never leaves the task's machine, and the look from there.

Private to this collection: may change without notice.

The branch itself is made on the DB host, by ``pg_branch``, between two calls of this: the first gives a verifier of the
password, the second sees the branch answer the task.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import _postgres, _secrets
from ._door import Params, Result, together
from ._errors import EnvironmentFailure, UserError

Item = t.TypeVar("Item")

ARGUMENT_SPEC: dict[str, t.Any] = {
    "host": {"type": "str"},
    "source": {"type": "str"},
    "parent": {"type": "str"},
    "expires": {"type": "str"},
    "protected": {"type": "bool", "default": False},
    "unreachable": {"type": "str"},
}
"""What this back end alone takes; the rest is the same for all (_databases.COMMON)."""

LOOK_SECONDS = 3
ANSWER_SECONDS = 15
"""The DB host has seen the branch answer; whoever does not get there from here will not get there later either."""


def operation(params: Params, *, check: bool) -> Result:
    """See to the task's password, and to its way to the branch; or forget the password."""
    path = params["password_file"]
    if params["state"] == "absent":
        return _forgotten(path, check=check)
    if not params["host"]:
        raise UserError(
            "the database has no host that it is a branch on", hint="name it: database_branch: {host: db.example.com}"
        )
    if params["unreachable"]:
        raise EnvironmentFailure(
            f"the DB host {params['host']} cannot be reached: {params['unreachable']}",
            hint=f"see whether Ansible gets there: ansible {params['host']} -m ping --become",
        )
    address = _address(params)
    facts = address.facts("branch", path)
    result = {**together(), "database": facts, "databases": {address.database: facts}}
    if check:
        return result
    password = _secrets.ensure(path)
    if params["wait"]:
        _look(address, password, min(params["timeout"], ANSWER_SECONDS))
    return {**result, "verifier": _postgres.steady_verifier(password)}


def found(plans: t.Iterable[dict[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    """Whether the branches of these plans answer from here, by key; one that PgBouncer does not know is not there."""
    there = {}
    for plan in plans:
        address = _address(plan)
        about = {"name": plan["name"], "owner": plan["owner"], "running": False}
        try:
            password = _secrets.read(plan["password_file"])
            with contextlib.closing(_postgres.connect(address, password, timeout=LOOK_SECONDS)):
                about["running"] = True
        except _postgres.driver().OperationalError as error:
            if is_gone(str(error)):
                continue
        except (EnvironmentFailure, FileNotFoundError):
            continue
        there[f"branch {address.database}"] = about
    return there


def is_gone(reason: str) -> bool:
    """Whether PgBouncer says by this that it knows no such branch; it may ask for the password first all the same."""
    return "authentication failed" in reason or "no such database" in reason


def _look(address: _postgres.Address, password: str, seconds: float) -> None:
    try:
        _postgres.wait_until_answers(
            address, password, identity=address.database, timeout=seconds, still_alive=lambda: None
        )
    except EnvironmentFailure as failure:
        raise EnvironmentFailure(
            f"the branch works on its DB host, but not from here: {failure.message}",
            hint="let this machine in, there: db_host_clients; or give the address to use from here: "
            "database_branch.address",
        ) from failure


def _address(params: t.Mapping[str, t.Any]) -> _postgres.Address:
    name, user = (_postgres.fit_name(params[key]) for key in ("name", "user"))
    return _postgres.Address(params["address"], params["port"] or 0, user, name)


def _forgotten(path: str, *, check: bool) -> Result:
    """The branch goes on its DB host; what is here is its password."""
    if not os.path.lexists(path):
        return together()
    if not check:
        os.unlink(path)
    return {"changed": True, "actions": [f"remove {path}"], "diff": [{"before": f"{path}\n", "after": ""}]}


def children_first(items: t.Iterable[Item], branch: t.Callable[[Item], tuple[str | None, str | None]]) -> list[Item]:
    """What is to be removed, in an order in which no branch goes before those that stand on it.

    :arg branch: the names of the branch of an item, and of its parent.
    """
    given = list(items)
    parents = dict(branch(item) for item in given)

    def ancestors(name: str | None) -> int:
        seen: set[str | None] = set()
        while (name := parents.get(name)) is not None and name not in seen:
            seen.add(name)
        return len(seen)

    return sorted(given, key=lambda item: -ancestors(branch(item)[0]))
