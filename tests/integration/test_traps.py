# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks have planted in their databases, and administrators who come by: every verb, in every back end."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from integration import traps
from integration.servers import (
    Shared,
    must,
    prune,
    psql,
    reachable,
    recorded,
    run,
    shared_server,
    status,
    task_parameters,
)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def server(pg_binaries):
    with reachable() as folder:
        yield shared_server(folder, pg_binaries, max_connections=60, max_prepared_transactions=5)


def log_of(server: Shared) -> str:
    folder = pathlib.Path(server.parameters["directory"], server.parameters["name"])
    return (folder / "server.log").read_text()


def in_server(server: Shared, **more: t.Any) -> dict[str, t.Any]:
    task = task_parameters("shared", **more)
    task |= {"user": task["name"], "port": server.port, "shared": {"admin_password_file": server.password_file}}
    task["databases"] = [{"name": task["name"], "extensions": ["file_fdw"]}]
    return task


@pytest.mark.parametrize("kind", traps.SETTINGS)
def test_no_verb_runs_what_a_task_has_planted_in_a_shared_server(server, kind):
    task = recorded(in_server(server))
    role, facts = task["user"], must(task)["database"]
    psql(facts, "begin; create table work (id int); prepare transaction 'left open'")
    assert psql(facts, traps.planted(role, role, traps.SETTINGS[kind])) == ""

    assert must(task)["changed"] is False
    task["databases"][0]["extensions"] = ["file_fdw", "pg_trgm"]
    assert run(task, check=True)["changed"]
    assert must(task)["changed"]
    assert [one["name"] for one in status()["tasks"]] == [task["name"]]
    prune(apply=True)
    must(task, state="absent")
    assert traps.sprung(log_of(server), "psql") == []
