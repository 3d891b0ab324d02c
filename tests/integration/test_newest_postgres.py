# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest PostgreSQL where other tests take the distribution's: private clusters, and a DB host.

Shared servers of it are in the tests of golden databases, pulls and shared servers.
"""

from __future__ import annotations

import os

import pytest
from integration import branches
from integration.servers import must, packaged, psql, reachable, read, shared_server, task_parameters

MAJOR = 18
VERSION = "select current_setting('server_version_num')::int / 10000"


@pytest.fixture(scope="module")
def folder():
    with reachable() as folder:
        yield folder


@pytest.fixture(scope="module")
def programs(folder):
    return packaged(folder)


def test_a_private_cluster_with_a_golden_database_and_a_pull(folder, programs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")  # psql and pg_dump are as new as the servers
    production = shared_server(folder, programs)
    production.psql("create table people as select n, 'person ' || n as name from generate_series(1, 100) n")
    source = f"postgresql://postgres:{read(production.password_file)}@127.0.0.1:{production.port}/postgres"
    monkeypatch.setenv("PRODUCTION_URL", source)
    (tmp_path / "1.sql").write_text("create table shop (n int); insert into shop values (1), (2);")
    (tmp_path / "mask.sql").write_text("update people set name = 'masked';")
    own = {"directory": str(folder / "clusters"), "bin_directory": str(programs)}
    task = task_parameters("embedded", embedded=own)
    task["databases"] = [
        {"key": "shop", "name": "shop", "golden": {"folder": str(tmp_path), "files": ["1.sql"]}},
        {
            "key": "people",
            "name": "people",
            "pull": {"url_variable": "PRODUCTION_URL", "mask": str(tmp_path / "mask.sql")},
        },
    ]
    try:
        made = must(task)
        assert psql(made["databases"]["shop"], VERSION) == str(MAJOR)
        assert psql(made["databases"]["shop"], "select sum(n) from shop") == "3"
        assert psql(made["databases"]["people"], "select name, count(*) from people group by 1") == "masked|100"
        assert not must(task)["changed"]
        assert must(task, state="absent", check=True)["written"] == []
        assert psql(made["databases"]["people"], "delete from people where n > 90") == ""
        (written,) = must(task, state="absent")["written"]
        assert (written["database"], written["rows"], written["tables"]) == ("people", 10, ["people"])
    finally:
        must(task, state="absent")
        production.stop()


def test_branches(programs, monkeypatch):
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with branches.db_host("btrfs", bin_directory=str(programs)) as host:
        host.must("elder")
        assert host.sql("elder", VERSION) == [MAJOR]
        host.sql("elder", "delete from orders where id > 10")
        host.must("junior", parent="elder")
        assert host.sql("junior", "select count(*) from orders") == [10]
        host.must("junior", state="absent")
        host.must("elder", state="reset")
        assert host.sql("elder", "select count(*) from orders") == [100]
        assert not host.must("elder")["changed"]
        host.must("elder", state="absent")
        assert host.left("elder") + host.left("junior") == []
