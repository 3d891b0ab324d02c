# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates on real worktrees and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration.repos import commit, git, refused, succeeded
from ports import free_port

from ansible_collections.parallel.worktrees.plugins.module_utils import _clusters, _gates, _postgres
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer


@pytest.fixture
def tree(sample):
    sample.make("docs")
    return sample.tree("docs")


def gate(*trees, checks, check=False, **more):
    worktrees = [{"name": tree.parents[1].name, "path": str(tree)} for tree in trees]
    checked = ArgumentSpecValidator(_gates.ARGUMENT_SPEC).validate(
        {"worktrees": worktrees, "checks": checks, "title": "fix", **more}
    )
    assert not checked.error_messages, checked.error_messages
    return answer(_gates.operation, checked.validated_parameters, check=check, diff=True)


def verdicts(result):
    return [(one["name"], one["repo"], one["verdict"]) for one in result["checks"]]


def test_a_result_per_check_and_repository(sample):
    sample.make("docs", "app")
    trees = [sample.tree("docs"), sample.tree("app")]
    (trees[0] / "broken").write_text("")
    checks = [
        {"name": "build", "command": "echo building; test ! -e broken"},
        {"name": "tests", "command": "true"},
        {"name": "health", "command": "test $WORD = yes", "repos": ["app"]},
        {"name": "sync", "command": "false", "stages": ["commit"]},
        {"name": "clean tree", "git": "clean"},
    ]
    result = gate(*trees, checks=checks, variables={"WORD": "yes"})
    text = refused(result, "user", "fix: 2 checks failed", "docs: build failed", "ended with 1", "building")
    assert "docs: clean tree failed: not committed: broken" in text
    assert verdicts(result) == [
        ("build", "docs", "failed"),
        ("build", "app", "passed"),
        ("tests", "docs", "skipped"),
        ("tests", "app", "passed"),
        ("health", "app", "passed"),
        ("clean tree", "docs", "failed"),
        ("clean tree", "app", "passed"),
    ]
    log = pathlib.Path(result["checks"][0]["log"])
    assert log.read_text() == "$ echo building; test ! -e broken\nbuilding\n"
    assert str(log) in result["hint"]
    (trees[0] / "broken").unlink()
    result = succeeded(gate(*trees, checks=checks, variables={"WORD": "yes"}))
    assert not result["changed"]
    assert result["summary"].startswith("fix: green\n  docs: build passed\n")


def test_a_detached_head(tree):
    checks = [{"name": "branch", "git": "attached"}]
    succeeded(gate(tree, checks=checks))
    git(tree, "switch", "--quiet", "--detach")
    refused(gate(tree, checks=checks), "user", "detached HEAD")
    succeeded(gate(tree, checks=[{**checks[0], "warns": ["gate"]}]))


def test_check_mode_runs_nothing(tree):
    result = succeeded(gate(tree, checks=[{"name": "touch", "command": "touch there"}], check=True))
    assert result["actions"] == ["check 'touch'"]
    assert not (tree / "there").exists()
    refused(gate(tree / "gone", checks=[], check=True), "environment", "there is no folder")


def test_commands_stay_inside(tree):
    refused(gate(tree, checks=[{"name": "out", "command": "true", "folder": "../.."}]), "user", "leads out")
    refused(gate(tree, checks=[{"name": "away", "command": "true", "folder": "away"}]), "user", "there is no folder")


def test_a_password_is_masked(tree, tmp_path):
    (tmp_path / "password").write_text("hush\n")
    checks = [{"name": "tell", "command": "echo $URL; false"}]
    secret = {
        "variables": {"URL": "x:PARALLEL_WORKTREES_DATABASE_PASSWORD@y"},
        "password_file": str(tmp_path / "password"),
    }
    result = gate(tree, checks=checks, **secret)
    assert "x:********@y" in result["msg"]
    assert "hush" not in str(result) + pathlib.Path(result["checks"][0]["log"]).read_text()


# Leaked databases


@pytest.fixture(scope="module")
def server(pg_binaries):  # noqa: ARG001 - its programs
    # Not below pytest's own folder: the server's system user has to get there.
    with tempfile.TemporaryDirectory(prefix="gates-", dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        given = {
            "name": "gates",
            "owner": "shop/gates",
            "directory": f"{folder}/clusters",
            "port": free_port(),
            "password_file": f"{folder}/password",
        }
        yield succeeded(cluster(given))["database"]
        succeeded(cluster({**given, "state": "absent"}))


def cluster(given):
    checked = ArgumentSpecValidator(_clusters.ARGUMENT_SPEC).validate(given)
    return answer(_clusters.operation, checked.validated_parameters, check=False, diff=False)


def sql(server, text):
    address = _postgres.Address(server["host"], server["port"], server["user"], "postgres")
    password = pathlib.Path(server["password_file"]).read_text().strip()
    with contextlib.closing(_postgres.connect(address, password)) as connection, connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchall() if cursor.description else []


def test_leaked_databases_are_found_and_dropped_on_request(tree, server):
    checks = [{"name": "leaked", "databases": "test_db_%", "warns": ["commit"], "stages": ["commit", "gate"]}]
    around = {"database": {**server, "spared": ["test_db_mine"]}, "password_file": server["password_file"]}
    for name in ("test_db_1", "test_db_2", "test_db_mine", "test_db_task", "prod"):
        sql(server, f"create database {name}")
    # That of another task, in a server that tasks share.
    sql(server, "create role other")
    sql(server, """comment on role other is '{"owner": "shop/other@01234567"}'""")
    sql(server, "alter database test_db_task owner to other")
    text = refused(gate(tree, checks=checks, **around), "user", "leaked failed: leaked: test_db_1, test_db_2")
    assert "drop_leaked=true" in text
    assert verdicts(succeeded(gate(tree, checks=checks, stage="commit", **around))) == [("leaked", None, "warned")]
    result = succeeded(gate(tree, checks=checks, drop_leaked=True, **around))
    assert result["changed"]
    assert result["actions"] == ["drop the leaked database test_db_1", "drop the leaked database test_db_2"]
    left = {row[0] for row in sql(server, "select datname from pg_database")}
    assert left >= {"test_db_mine", "test_db_task", "prod"}
    assert not left & {"test_db_1", "test_db_2"}
    assert not succeeded(gate(tree, checks=checks, drop_leaked=True, **around))["changed"]


def test_cannot_tell_is_not_a_no(tree, server):
    checks = [{"name": "leaked", "databases": "test_db_%"}]
    refused(gate(tree, checks=checks), "user", "has no database server")
    around = {"database": {**server, "port": free_port()}, "password_file": server["password_file"]}
    refused(gate(tree, checks=checks, **around), "user", "the server cannot be asked")


def test_a_gate_looks_at_the_commit_that_is_there(tree):
    commit(tree)
    succeeded(gate(tree, checks=[{"name": "clean", "git": "clean"}]))
