# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a task's data at teardown: they are kept where that is asked, and named where they go."""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
import signal
import subprocess
import typing as t

import pytest
from integration import workspaces
from integration.servers import psql, reachable, shared_server
from integration.workspaces import CLONE, wait_for
from ports import free_base

BACKENDS = ("embedded", "container", "shared")


class Shop(workspaces.Workspace):
    """The workspace of examples/shop.yml; each back end has one."""

    def __init__(self, folder, backend, **variables):
        own = secrets.token_hex(3)
        base = free_base()
        ports = {"database": {"base": base + 800}, "api": {"base": base}, "web": {"base": base + 400}}
        given = {"workspace_name": f"shop-{own}", "workspace_root": str(folder / "work"), "lease_ports": ports}
        (folder / "state").mkdir(parents=True)
        given |= {"database_backend": backend, **variables}
        super().__init__(folder / "work", CLONE / "examples" / "shop.yml", folder / "state", given)
        script = CLONE / "scripts" / "sample_workspace.py"
        subprocess.run(["python3", script, self.root, "--shape", "shop"], check=True)

    def made(self, task):
        """The facts of the database of a new task."""
        return self.provision(task).must().result("pg_database")["database"]


@pytest.fixture(scope="module")
def folder():
    with reachable() as folder:
        yield folder


@pytest.fixture(scope="module", params=BACKENDS)
def shop(request, tmp_path_factory, folder):
    variables: dict[str, t.Any] = {}
    if request.param == "embedded":
        variables["database_directory"] = str(folder / "clusters")
    elif request.param == "container":
        image = f"kept-{secrets.token_hex(4)}:15"
        workspaces.docker("tag", request.getfixturevalue("postgres_image"), image)
        variables |= {"database_image": image, "database_pull": "never"}
    else:
        server = shared_server(folder, request.getfixturevalue("pg_binaries"))
        variables["database_name"] = "shop_{{ task_facts.slug }}"
        variables["database_server_port"] = server.port
        variables["database_admin_password_file"] = server.password_file
    made = Shop(tmp_path_factory.mktemp(request.param), request.param, **variables)
    yield made
    workspaces.remove_databases(made)


def port_of(shop, task):
    return shop.task(task)["ports"]["database"]


def test_a_kept_database_stays_until_it_is_used_again_or_removed_by_force(shop):
    facts = shop.made("work")
    ports = shop.task("work")["ports"]
    assert psql(facts, "create table mine as select 42 as answer") == ""
    run = shop.teardown("work", keep_database="true").must()
    summary = run.result("task_record", step="Record")["summary"]
    assert re.search(rf"database +\S+ \({facts['backend']}\) stays; to use it again: .* task=work\n", summary)
    assert "gone" not in summary
    # It is told, and no prune removes it.
    (orphan,) = [one for one in shop.status()["orphans"] if one["kept"]]
    assert orphan["kind"] == facts["backend"]
    for options in ({}, {"apply": "true"}):
        said = shop.run("prune", **options).must().stdout
        assert f"{orphan['kind']} {orphan['name']} stays: it was kept when task work was torn down" in said
        assert "force=true" in said
    assert psql(facts, "select answer from mine") == "42"
    # No other task gets its slot; a task of its name gets slot, ports, password and data again.
    shop.made("other")
    assert port_of(shop, "other") not in ports.values()
    assert shop.made("work") == facts
    assert shop.task("work")["ports"] == ports
    assert psql(facts, "select answer from mine") == "42"
    assert not any(one["kept"] for one in shop.status()["orphans"])

    shop.teardown("work", keep_database="true").must()
    shop.run("prune", "--check", apply="true", force="true").must()
    assert psql(facts, "select answer from mine") == "42"
    shop.run("prune", apply="true", force="true").must()
    assert (shop.status()["orphans"], shop.secrets("work")) == ([], [])
    # Its slot is free again.
    shop.teardown("other").must()
    shop.made("next")
    assert shop.task("next")["ports"] == ports
    shop.teardown("next").must()


def test_data_that_go_are_told(shop):
    facts = shop.made("told")
    run = shop.teardown("told", "--check").must()
    assert "database" not in run.result("task_record", step="Record")["summary"]
    assert psql(facts, "create table orders as select generate_series(1, 12) n") == ""
    words = "12 rows written in orders and tables or functions changed since it was made"

    def planned():
        return shop.teardown("told", "--check").must().stdout

    assert wait_for(lambda: words not in planned()) is False
    assert f"{facts['name']}, would be gone: {words}" in planned()
    run = shop.teardown("told", format="json").must()
    (written,) = json.loads(run.stdout)["written"]
    row = {"database": facts["name"], "rows": 12, "tables": ["orders"], "definitions": True, "unknown": None}
    assert written == row
    assert json.loads(run.stdout)["kept"] is None


@pytest.mark.parametrize("shop", ["embedded"], indirect=True)
def test_what_nobody_knows_is_told_as_that(shop):
    """A server that has crashed lost its counters, and one that is stopped does not tell them."""
    facts = shop.made("stopped")
    (data,) = pathlib.Path(shop.variables["database_directory"]).glob(f"*{facts['cluster']}/data")
    pid = int((data / "postmaster.pid").read_text().split()[0])
    backend = int(psql(facts, "select pid from pg_stat_activity where backend_type = 'checkpointer'"))
    os.kill(backend, signal.SIGKILL)
    assert wait_for(lambda: psql(facts, "select 1") != "1") is False
    assert "nobody knows what was written since it was made: the server has lost" in (
        shop.teardown("stopped", "--check").must().stdout
    )
    os.kill(pid, signal.SIGINT)
    assert not wait_for((data / "postmaster.pid").exists)
    assert "nobody knows what was written since it was made: " in shop.teardown("stopped").must().stdout
