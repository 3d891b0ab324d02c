# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a pull verifies the server that its URL names; the server's own view is asked for."""

from __future__ import annotations

import os

import pytest
from integration.servers import certified, must, psql, reachable, read, refused, shared_server, task_parameters


@pytest.fixture(scope="module")
def folder(pg_binaries):  # noqa: ARG001 - it fails where there is no PostgreSQL
    with reachable() as folder:
        yield folder


@pytest.fixture(scope="module")
def source(folder, pg_binaries):
    """One that takes encrypted connections alone."""
    server = shared_server(folder, pg_binaries, **certified(folder))
    server.psql("create table goods as select 'tea' as name")
    hba = f"{server.parameters['directory']}/server/data/pg_hba.conf"
    server.psql(f"copy (select 'hostssl all all 127.0.0.1/32 scram-sha-256') to '{hba}'")
    server.psql("select pg_reload_conf()")
    return server


def test_a_pull_verifies_the_server_where_its_url_says_so(source, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url = tmp_path / "url"
    task = task_parameters("embedded", embedded={"directory": str(folder / "tasks")})
    task["databases"] = [{"name": "app", "pull": {"url_file": str(url)}}]

    def ask(parameters, host="127.0.0.1"):
        login = f"postgres:{read(source.password_file)}"
        url.write_text(f"postgresql://{login}@{host}:{source.port}/postgres?{parameters}")
        os.chmod(url, 0o600)

    right, wrong = (folder / f"{name}.crt" for name in ("right", "wrong"))
    for parameters, host, words in (
        (f"sslmode=verify-full&sslrootcert={wrong}", "127.0.0.1", "certificate verify failed"),
        (f"sslmode=verify-full&sslrootcert={right}", "localhost", "does not match host name"),
        ("sslmode=disable", "127.0.0.1", "no encryption"),
    ):
        ask(parameters, host)
        assert words in refused(task, "environment")
    for parameters in (f"sslmode=verify-full&sslrootcert={right}", ""):  # without: encrypted, and not verified
        ask(parameters)
        assert psql(must(task)["database"], "select name from goods") == "tea"
        must(task, state="absent")
