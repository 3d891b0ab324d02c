# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's databases in a server that all tasks share: one that is there, or a container that the workspace declares.

Private to this collection: may change without notice.

Whoever comes first starts the container. It belongs to no task, so no teardown stops it; its data lie in a volume.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from . import _containers, _pg_databases, _pg_pull, _pg_server, _postgres, _secrets
from ._door import Params, Result, filled, together
from ._errors import EnvironmentFailure, UserError, WorktreesError
from ._golden import Golden, is_golden
from ._pg_server import Journal, Server, administration, analyze, compose
from ._registry import task_of
from ._state import state_folder

LOOK_SECONDS = 5
BUILD_SECONDS = 3600
"""How long a run waits for another that builds the golden database that it needs."""

SEALED = "select from pg_database where datname = %(name)s and datistemplate"
GOLDENS = """
select d.datname, d.oid::bigint, d.datistemplate, shobj_description(r.oid, 'pg_authid')
from pg_database d join pg_roles r on r.rolname = d.datname
where d.datname ~ '^golden_'
    and starts_with(shobj_description(r.oid, 'pg_authid'), '{"owner": ')
"""
"""Each has a role of the same name, which made what is in it; the later one was made the higher is its number."""

SAME = (
    *("owner", "state", "timeout", "password_file", "databases", "pull_again"),
    *("admin_user", "maintenance_database", "protected"),
)
"""What ``_pg_databases`` takes under the same name."""

CONTAINER_OPTIONS = ("image", "pull", "volume", "memory", "shm_size", "environment", "docker_host")

ADMINISTRATION = {
    key: _pg_server.ARGUMENT_SPEC[key] for key in ("admin_user", "admin_password_file", "maintenance_database")
}

ARGUMENT_SPEC: dict[str, t.Any] = {
    **ADMINISTRATION,
    "protected": _pg_databases.ARGUMENT_SPEC["protected"],
    "container": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            **{key: _containers.ARGUMENT_SPEC[key] for key in CONTAINER_OPTIONS},
        },
    },
}
"""What this back end alone takes; the rest is the same for all (_databases.COMMON)."""


def operation(params: Params, *, check: bool) -> Result:
    """Give a task its databases in the server, or remove them."""
    server = _Server(params)
    asked = {
        **{key: params[key] for key in SAME},
        "host": params["address"],
        "port": server.port,
        "role": params["user"],
        "admin_password_file": server.admin_password_file,
    }
    if params["state"] == "absent" and not server.is_there():
        return _forgotten(params["password_file"], check=check)
    # What is absent, or only looked at, has to be asked of the server.
    wait = params["wait"] or params["state"] == "absent" or check
    started = server.start(wait=wait, check=check)
    if check and not server.answers():
        return {**_facts(asked), **together(started, _planned(asked))}
    if not wait:
        _secrets.ensure(params["password_file"])  # env files have it before the databases do
        return {**_facts(asked), **together(started)}
    if params["state"] == "present":
        built = [_build(wish, asked, check=check) for wish in asked["databases"] if wish["golden"]]
        started = together(started, *built)
        asked["databases"] = [_copied(wish, check=check) for wish in asked["databases"]]
    done = _pg_databases.operation(asked, check=check)
    return {**done, **together(started, done)}


def _forgotten(path: str, *, check: bool) -> Result:
    """What is left to remove of a task whose server is gone, data and all: its password."""
    if not os.path.lexists(path):
        return together()
    if not check:
        os.unlink(path)
    return {"changed": True, "actions": [f"remove {path}"], "diff": [{"before": f"{path}\n", "after": ""}]}


def _copied(wish: dict[str, t.Any], *, check: bool) -> dict[str, t.Any]:
    """A database as a copy of its golden one, which in check mode may not be there yet."""
    if wish["golden"] is None or check:
        return wish
    return {**wish, "template": wish["golden"].name}


def _build(wish: dict[str, t.Any], asked: Params, *, check: bool) -> Result:
    """See that there is what a database is to be copied from: a template that takes no connections.

    Whoever builds it is alone at it; others wait. What a killed run left of it is no template, and is made anew.
    """
    golden = wish["golden"]
    journal = Journal(check=check)
    with administration(asked, journal) as server:
        if _pg_databases.is_complete(server, _postgres.fit_name(wish["name"])):
            return together()  # what it was copied from matters no more
        if not check:
            server.lock(golden.name, BUILD_SECONDS)
        if server.rows(SEALED, name=golden.name):
            return together()
        journal.begin(f"build golden database {golden.name}")
        if not check:
            _build_alone(golden, asked, server)
    return {"changed": True, "actions": journal.actions, "diff": []}


def _build_alone(golden: Golden, asked: Params, server: Server) -> None:
    """Have a role of its own make and fill it, and let nobody in from then on."""
    password_file = _password_file(golden.name)
    given = {
        **asked,
        "owner": golden.owner,
        "role": golden.name,
        "password_file": password_file,
        "databases": [{**_plainly(golden.name), "extensions": list(golden.extensions)}],
    }
    _pg_databases.operation({**given, "state": "absent"}, check=False)
    try:
        _pg_databases.operation(given, check=False)
        address = _postgres.Address(asked["host"], asked["port"], golden.name, golden.name)
        password = _secrets.read(password_file)
        golden.fill(address, password, server=server)
        analyze(address, password)
        server.act(
            None,
            # Its role owns no database, so that what it has in copies can be handed over.
            compose("revoke all on database {} from {}", golden.name, golden.name),
            compose("alter database {} owner to current_user", golden.name),
            compose("alter database {} is_template true allow_connections false", golden.name),
            compose("alter role {} nologin password null", golden.name),
        )
        server.end_sessions(golden.name)  # what a command left running would keep it from being copied
    except Exception:
        with contextlib.suppress(WorktreesError):
            _pg_databases.operation({**given, "state": "absent"}, check=False)
        raise
    os.unlink(password_file)


def _password_file(golden: str) -> str:
    """Where the password of its role lies while it is built."""
    return os.path.join(state_folder(), "golden", golden)


def _plainly(name: str) -> dict[str, t.Any]:
    """A database of which nothing but its name is asked."""
    return filled(_pg_databases.ARGUMENT_SPEC["databases"]["options"], {"name": name})


def _facts(asked: Params) -> Result:
    """What the task is told of databases that are still to be made; nothing where they go."""
    return _pg_databases.facts(asked) if asked["state"] == "present" else {}


def _planned(asked: Params) -> Result:
    """What is going to be done in a server that is not there yet, as far as can be told."""
    if asked["state"] == "absent":
        actions = [f"drop database {_postgres.fit_name(one['name'])}" for one in asked["databases"]]
    else:
        goldens = [f"build golden database {one['golden'].name}" for one in asked["databases"] if one["golden"]]
        made = _pg_pull.planned(asked["databases"])
        actions = [*goldens, f"create role {_postgres.fit_name(asked['role'])}", *made]
    return {"changed": True, "actions": actions, "diff": []}


def found(plans: t.Iterable[dict[str, t.Any]], silent: dict[str, str]) -> dict[str, dict[str, t.Any]]:
    """What tasks have in the servers that these plans name, by server and role (:func:`key_of`).

    :arg silent: takes the servers that cannot be looked into (:func:`place_of`), and why.
    """
    servers = {place_of(plan): plan for plan in plans}
    there: dict[str, dict[str, t.Any]] = {}
    for place, plan in servers.items():
        try:
            for one in _pg_databases.marked(_as_admin(plan)):
                if is_golden(one["owner"]):
                    continue
                about = {**one, "name": one["role"], "user": one["role"], "running": True}
                about["databases"] = [{"name": name} for name in one["databases"]]
                about |= {key: plan[key] for key in ("address", "port", "shared")}
                there[key_of(about)] = about
        except (EnvironmentFailure, UserError) as error:
            silent[place] = error.message
    return there


def goldens(plans: t.Iterable[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The golden databases in the servers that these plans name, as ``_golden.superseded`` wants them."""
    there: list[dict[str, t.Any]] = []
    for plan in {place_of(plan): plan for plan in plans}.values():
        place = {key: plan[key] for key in ("address", "port", "shared")}
        with contextlib.suppress(EnvironmentFailure, UserError):
            with administration(_as_admin(plan), Journal(check=True)) as server:
                rows = server.rows(GOLDENS)
            for name, number, complete, mark in rows:
                about = {"name": name, "owner": json.loads(mark)["owner"], "built": number, "complete": complete}
                there.append({**place, **about, "place": place_of(plan), "in_use": False})
    return there


def remove_golden(about: dict[str, t.Any]) -> None:
    """Remove what nobody copies any more.

    :arg about: as ``goldens`` tells it.
    :raises EnvironmentFailure: somebody is at work on it.
    """
    name = about["name"]
    own = {"owner": about["owner"], "role": name, "state": "absent", "databases": [_plainly(name)]}
    own["password_file"] = _password_file(name)
    asked = filled(_pg_databases.ARGUMENT_SPEC, {**_as_admin(about), **own})
    with administration(asked, Journal(check=False)) as server:
        server.lock(name, LOOK_SECONDS)
        server.act(
            f"remove golden database {name}",
            compose("alter database {} is_template false", name),
            compose("alter database {} owner to {}", name, name),
        )
        _pg_databases.operation(asked, check=False)


def key_of(plan: dict[str, t.Any]) -> str:
    return f"shared {place_of(plan)} {_postgres.fit_name(plan['user'])}"


def names(plan: dict[str, t.Any]) -> set[str]:
    """The names of a task's databases, as the server has them."""
    given = plan["databases"] or [{"name": plan["database"] or plan["user"]}]
    return {_postgres.fit_name(one["name"]) for one in given}


def place_of(plan: dict[str, t.Any]) -> str:
    """The server that a plan means."""
    return f"{plan['address']}:{plan['port']}"


def _as_admin(plan: dict[str, t.Any]) -> Params:
    given = {"state": "absent", "timeout": LOOK_SECONDS, **plan, **plan["shared"]}
    server = _Server(given)
    return {
        **{key: given[key] for key in ("timeout", "admin_user", "maintenance_database")},
        "host": given["address"],
        "port": server.port,
        "admin_password_file": server.admin_password_file,
    }


class _Server:
    """Where the databases are."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.container: dict[str, t.Any] | None = params["container"]
        self.port: int = params["port"]
        self.admin_password_file: str | None = params["admin_password_file"]
        if self.container:
            for key in ("image", "volume"):
                if params["state"] == "present" and not self.container[key]:
                    raise UserError(f"the server's container {self.container['name']} needs {key}")
            self.admin_password_file = self.admin_password_file or os.path.join(
                state_folder(), "servers", self.container["name"]
            )

    def is_there(self) -> bool:
        container = self.container
        return container is None or _containers.is_there(
            container["name"], container["volume"], container["docker_host"]
        )

    def answers(self) -> bool:
        """Whether it can be asked; of one that is not ours to start, that is for the question itself to find out."""
        if self.container is None:
            return True
        params = self.params
        address = _postgres.Address(params["address"], self.port, params["admin_user"], params["maintenance_database"])
        try:
            password = _secrets.read(t.cast("str", self.admin_password_file))
        except FileNotFoundError:
            return False
        return _postgres.answers(address, password, identity=self.container["name"])

    def start(self, *, wait: bool, check: bool) -> Result:
        """See that the server runs. One that the workspace does not declare is not ours to start."""
        if self.container is None or (self.params["state"] == "absent" and self.answers()):
            return together()
        return _containers.operation(
            filled(
                _containers.ARGUMENT_SPEC,
                {
                    **self.container,
                    **{key: self.params[key] for key in ("address", "timeout", "settings")},
                    # Of whichever task comes first, so of none.
                    "owner": f"server@{task_of(self.params['owner'])[0]}",
                    "port": self.port,
                    "user": self.params["admin_user"],
                    "database": self.params["maintenance_database"],
                    "password_file": self.admin_password_file,
                    "wait": wait,
                },
            ),
            check=check,
        )
