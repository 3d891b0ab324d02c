# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases of a task, whatever their back end: one set of parameters in, one set of facts out.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from . import (
    _clusters,
    _containers,
    _golden,
    _own_databases,
    _pg_databases,
    _pg_programs,
    _pg_pull,
    _postgres,
    _shared,
    _task_branch,
    _written,
)
from ._door import Operation, Params, Result, filled
from ._errors import EnvironmentFailure, UserError
from ._state import state_folder

BACKENDS: dict[str, tuple[Operation, dict[str, t.Any]]] = {
    "branch": (_task_branch.operation, _task_branch.ARGUMENT_SPEC),
    "container": (_containers.operation, _containers.ARGUMENT_SPEC),
    "embedded": (_clusters.operation, _clusters.ARGUMENT_SPEC),
    "shared": (_shared.operation, _shared.ARGUMENT_SPEC),
}

OWN_SERVER = ("container", "embedded")
"""The back ends with a server of the task's own, where any number of databases can be made."""

COMMON: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 120.0},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int"},
    "user": {"type": "str", "default": "postgres"},
    "database": {"type": "str"},
    "databases": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "key": {"type": "str", "no_log": False},
            **_pg_databases.ARGUMENT_SPEC["databases"]["options"],
            "golden": {"type": "dict", "options": _golden.OPTIONS},
        },
    },
    "pull_again": {"type": "bool", "default": False},
    "password_file": {"type": "path", "no_log": False},
    "settings": {"type": "dict", "default": {}},
}

FINDING = ("name", "address", "port", "user", "database", "databases", "settings")
"""What finds the databases of a task again, beside what only their back end takes."""

NONE: dict[str, t.Any] = {
    "backend": "none",
    **dict.fromkeys(("host", "port", "user", "name", "password", "password_file", "url")),
}
"""The facts of a task without a database: the same keys, so that the workspace's templates need no conditions."""


def _own_options(backend: str) -> dict[str, t.Any]:
    options = {key: spec for key, spec in BACKENDS[backend][1].items() if key not in COMMON}
    return {"type": "dict", "apply_defaults": True, "options": options}


ARGUMENT_SPEC: dict[str, t.Any] = {
    "backend": {"type": "str", "choices": ["none", *BACKENDS], "required": True},
    **COMMON,
    "ports": {"type": "dict", "default": {}},
    **{backend: _own_options(backend) for backend in BACKENDS},
}


def operation(params: Params, *, check: bool) -> Result:
    """Make or remove the databases of a task."""
    backend, params = params["backend"], _with_daemon(params)
    if backend == "none":
        return {"changed": False, "actions": [], "diff": [], "database": NONE, "databases": {}, "plan": {}}
    if backend == "branch" and params["databases"] and params["state"] == "present":
        raise UserError(
            "a branch has the database of its source, and no others",
            hint="leave database_databases out, or choose another back end: database_backend",
        )
    given = params["databases"] or [_wish(params["database"] or params["user"])]
    if params["state"] == "present":
        if params["port"] is None and backend != "branch":
            raise _no_port(params["ports"])
        _postgres.driver()  # what is needed last is missed first, before anything is made
        _check_differ("key", [one["key"] or one["name"] for one in given])
        _check_differ("name", [_postgres.fit_name(one["name"]) for one in given])
        if backend in OWN_SERVER and params["databases"]:
            _check_are_not_the_servers([one["name"] for one in given], params["user"])
        wishes = [_with_golden(one, number, params["owner"]) for number, one in enumerate(given)]
    else:
        wishes = [{**one, "golden": None} for one in given]
    secret = params["password_file"] or password_file(params["owner"])
    asked = {
        **{key: params[key] for key in COMMON},
        **(params[backend] or {}),
        "databases": wishes,
        "password_file": secret,
    }
    if goldens := tuple(wish["golden"] for wish in wishes if wish["golden"]):
        asked["goldens"] = _golden.Goldens(goldens)
    if params["databases"]:
        asked["database"] = None  # they are made beside the server's own
    run, _spec = BACKENDS[backend]
    written = _written_to(params, secret) if params["state"] == "absent" else []
    with _pg_programs.found_in(asked.get("bin_directory")):
        result = run(asked, check=check)
        if backend in OWN_SERVER and params["databases"] and params["state"] == "present":
            result = _own_databases.ensure(asked, result, check=check)
    if params["state"] == "absent":
        result["written"] = written
        if left := result.get("left"):
            result["warnings"] = [*result.get("warnings", ()), *left]
        if not check:
            _forget_password(secret, state_folder())
    else:
        if backend in OWN_SERVER and not params["databases"]:
            result["databases"] = {wishes[0]["name"]: result["database"]}
        keys = {one["name"]: one["key"] for one in given}
        result["databases"] = {keys.get(name) or name: facts for name, facts in result["databases"].items()}
    finding = {key: params[key] for key in FINDING}
    finding["databases"] = [{key: one[key] for key in ("key", "name")} for one in params["databases"]]
    result["plan"] = {"backend": backend, **finding, backend: params[backend]}
    return result


def _with_daemon(params: Params) -> Params:
    """The parameters with the Docker daemon that they mean now; a later run may have other variables."""
    shared = params["shared"]
    if params["backend"] == "container" and (own := params["container"]):
        return {**params, "container": {**own, "docker_host": _containers.daemon(own["docker_host"])}}
    if params["backend"] == "shared" and shared and (server := shared["container"]):
        server = {**server, "docker_host": _containers.daemon(server["docker_host"])}
        return {**params, "shared": {**shared, "container": server}}
    return params


def _written_to(params: Params, secret: str) -> list[dict[str, t.Any]]:
    """What the task wrote into its databases, which are about to go; nothing where they are gone already."""
    backend, user = params["backend"], params["user"]
    if not params["port"]:  # nothing but its name is known of what prune has found
        return []
    given = [one["name"] for one in params["databases"]] or [params["database"] or user]
    if backend == "branch":
        given = [params["name"]]
    address = _postgres.Address(params["address"], params["port"], _postgres.fit_name(user), "")
    names = [_postgres.fit_name(name) for name in given]
    found = _written.look(address, names, secret, others=backend in OWN_SERVER)
    if backend == "branch":  # it goes on its DB host, before its password does here
        return [one for one in found if not _task_branch.is_gone(one["unknown"] or "")]
    return found if any(not one["unknown"] for one in found) or _is_there(params, secret) else []


def _is_there(params: Params, secret: str) -> bool:
    """Whether there is anything of the task's, whose server may be stopped; where that is others', its password."""
    backend, own = params["backend"], params[params["backend"]] or {}
    if backend == "container":
        return _containers.is_there(params["name"], None, own["docker_host"])
    if backend == "embedded":
        return any(one["name"] == params["name"] for one in _clusters.clusters(own["directory"]))
    return os.path.exists(secret)


def _wish(name: str) -> dict[str, t.Any]:
    """A database of which nothing but its name is asked."""
    return filled(COMMON["databases"]["options"], {"name": name})


def _no_port(ports: t.Mapping[str, t.Any]) -> UserError:
    """The database takes the port of its own name, unless the workspace says which."""
    names = list(ports)
    if not names:
        return UserError(
            "the database has no port: the task has none", hint="lease a port: lease_ports: {database: {base: 15432}}"
        )
    return UserError(
        f"the database has no port: the task has {', '.join(names)}, and none is called database",
        hint=f'say which it is, such as database_port: "{{{{ task_facts.ports.{names[0]} }}}}"; or lease one more: '
        "lease_ports: {database: {base: 15432}}",
    )


def _check_differ(what: str, given: list[str]) -> None:
    for one in given:
        if given.count(one) > 1:
            raise UserError(f"two databases have the {what} {one!r}", hint=f"give each its own databases[].{what}")


def _check_are_not_the_servers(names: list[str], user: str) -> None:
    for name in names:
        if name in {user, *_pg_databases.PROTECTED}:
            raise UserError(f"database {name} is the server's own", hint="choose another name for the task's")


def _with_golden(given: dict[str, t.Any], number: int, owner: str) -> dict[str, t.Any]:
    """A database as it is asked for, with what its golden one is built from."""
    if given["golden"] is None:
        return given
    for other in ("template", "dump", "pull"):
        if given[other]:
            raise UserError(
                f"database {given['name']} cannot begin both as a golden database and from a {other}",
                hint="leave one of them out; a golden database may itself begin with golden.dump",
            )
    family = _golden.owner_of(owner, given["key"] or str(number))
    return {**given, "golden": _golden.Golden.of(given["golden"], family, given["extensions"])}


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the databases of some tasks are.

    :ivar directories: of embedded clusters; None for the default one.
    :ivar servers: the plans of tasks, by which shared ones are found.
    """

    docker_hosts: set[str | None]
    directories: set[str | None]
    servers: list[dict[str, t.Any]]

    @classmethod
    def of(cls, plans: t.Sequence[dict[str, t.Any]]) -> Places:
        """
        :arg plans: as the records of tasks have them, or with what the workspace says by now.
        """

        def said(backend: str, key: str) -> set[str | None]:
            return {(plan.get(backend) or plan).get(key) for plan in plans if plan["backend"] == backend}

        daemons = {_containers.daemon(host) for host in said("container", "docker_host")}
        servers = [plan for plan in plans if plan["backend"] == "shared" and "shared" in plan]
        return cls(daemons, said("embedded", "directory"), servers)


def superseded(plans: t.Sequence[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The golden databases that no task is going to begin with, nor is made from, in what these plans name.

    A back end that does not answer has none.
    """
    found: list[dict[str, t.Any]] = []
    places = Places.of(plans)
    for host in places.docker_hosts:
        place = {"backend": "container", "docker_host": host, "place": f"container {host}"}
        with contextlib.suppress(EnvironmentFailure), _containers.connected(host) as client:
            found += [{**one, **place} for one in _containers.goldens(client)]
    for folder in places.directories:
        place = {"backend": "embedded", "directory": folder, "place": f"embedded {folder}"}
        found += [{**one, **place} for one in _clusters.goldens(folder)]
    found += [{**one, "backend": "shared"} for one in _shared.goldens(places.servers)]
    return _golden.superseded(found)


def remove_golden(about: dict[str, t.Any]) -> None:
    """
    :arg about: as ``superseded`` tells it.
    """
    _golden.forget_pulls()
    if about["backend"] == "container":
        with _containers.connected(about["docker_host"]) as client:
            _containers.remove_prepared(client, about["name"])
    elif about["backend"] == "embedded":
        _clusters.remove_golden(about["directory"], about["name"])
    else:
        _shared.remove_golden(about)


def password_file(owner: str) -> str:
    """Where the password of a task's database lies."""
    return os.path.join(state_folder(), "secrets", owner, "database")


def _forget_password(path: str, top: str) -> None:
    """Remove the password, what a killed pull left beside it, and the folders that were made for it."""
    _pg_pull.forget(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        while (path := os.path.dirname(path)).startswith(top + os.sep):
            os.rmdir(path)
