# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases of a task, whatever their back end: one set of parameters in, one set of facts out.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import _clusters, _containers, _golden, _own_databases, _pg_databases, _postgres, _shared
from ._door import Operation, Params, Result
from ._errors import UserError
from ._state import state_folder

BACKENDS: dict[str, tuple[Operation, dict[str, t.Any]]] = {
    "container": (_containers.operation, _containers.ARGUMENT_SPEC),
    "embedded": (_clusters.operation, _clusters.ARGUMENT_SPEC),
    "shared": (_shared.operation, _shared.ARGUMENT_SPEC),
}

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
    "password_file": {"type": "path", "no_log": False},
    "settings": {"type": "dict", "default": {}},
}

FINDING = ("name", "address", "port", "user", "database", "databases")
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
    **{backend: _own_options(backend) for backend in BACKENDS},
}


def operation(params: Params, *, check: bool) -> Result:
    """Give or take back the databases of a task."""
    backend = params["backend"]
    if backend == "none":
        return {"changed": False, "actions": [], "diff": [], "database": NONE, "databases": {}, "plan": {}}
    if params["state"] == "present" and params["port"] is None:
        raise UserError(
            "the database has no port",
            hint="lease one: lease_ports has to name the port that database_port takes (database)",
        )
    if params["state"] == "present":
        _postgres.driver()  # what is needed last is missed first, before anything is made
    run, _spec = BACKENDS[backend]
    secret = params["password_file"] or password_file(params["owner"])
    given = params["databases"] or [_wish(params["database"] or params["user"])]
    wishes = [
        _with_golden(one, number) if params["state"] == "present" else {**one, "golden": None}
        for number, one in enumerate(given)
    ]
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
    result = run(asked, check=check)
    if params["state"] == "absent":
        if not check:
            _forget_password(secret, state_folder())
    else:
        if backend != "shared" and params["databases"]:
            result = _own_databases.ensure(asked, result, check=check)
        elif backend != "shared":
            result["databases"] = {wishes[0]["name"]: result["database"]}
        keys = {one["name"]: one["key"] or one["name"] for one in given}
        result["databases"] = {keys[name]: facts for name, facts in result["databases"].items()}
    finding = {key: params[key] for key in FINDING}
    result["plan"] = {"backend": backend, **finding, backend: params[backend]}
    return result


def _wish(name: str) -> dict[str, t.Any]:
    """A database of which nothing but its name is asked."""
    spec = COMMON["databases"]["options"]
    return {**{key: about.get("default") for key, about in spec.items()}, "name": name}


def _with_golden(given: dict[str, t.Any], number: int) -> dict[str, t.Any]:
    """A database as it is asked for, with what its golden one is built from."""
    label = given["key"] or str(number)
    golden = given["golden"] and _golden.Golden.of(given["golden"], label, given["extensions"])
    return {**given, "golden": golden}


def password_file(owner: str) -> str:
    """Where the password of a task's database lies."""
    return os.path.join(state_folder(), "secrets", owner, "database")


def _forget_password(path: str, top: str) -> None:
    """Remove the password and the folders that were made for it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        while (path := os.path.dirname(path)).startswith(top + os.sep):
            os.rmdir(path)
