# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker daemon that ends, or hangs, while tasks have their databases in its containers."""

from __future__ import annotations

import functools
import os
import random
import time

import pytest
from integration import daemons
from integration.servers import (
    fork,
    must,
    outcome,
    prune,
    psql,
    recorded,
    refused,
    run,
    status,
    task_parameters,
)

from ansible_collections.parallel.worktrees.plugins.module_utils import _containers

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def daemon(docker_client, postgres_image):  # noqa: ARG001 - it fails where Docker does not answer
    with daemons.daemon(postgres_image) as made:
        yield made


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "parallel-worktrees"


@pytest.fixture
def task(daemon, postgres_image):
    own = {"image": postgres_image, "pull": "never", "docker_host": daemon.url}
    return task_parameters("container", container=own)


def test_while_it_is_down_nothing_is_lost_and_afterwards_all_goes_on(daemon, task):
    task = recorded(task)
    facts = must(task)["database"]
    assert psql(facts, "create table mine as select 42 as answer") == ""
    daemon.stop()
    for more in ({}, {"check": True}, {"state": "absent"}, {"state": "absent", "check": True}):
        words = refused(task, "environment", **more)
        assert "Docker does not answer" in words
        assert "systemctl start docker" in words
    (found,) = status()["tasks"]
    assert found["database"]["state"] == "unknown"
    (drift,) = found["drift"][:1]
    assert drift.startswith(f"database {task['name']} is unknown: Docker does not answer at {daemon.url}")
    assert prune(apply=True)["leftovers"] == []
    assert os.path.exists(facts["password_file"])

    daemon.start()
    assert must(task)["actions"] == [f"start container {task['name']}"]
    assert psql(facts, "select answer from mine") == "42"
    daemon.stop()
    daemon.start()  # the container is stopped
    (written,) = must(task, state="absent")["written"]
    assert written["unknown"]
    assert daemon.must("ps", "--all", "--quiet") == ""


def test_ended_at_any_moment_the_next_run_goes_on(daemon, task):
    must(task)
    must(task, state="absent")
    for seed in range(2):
        chance = random.Random(seed)
        environment = {**task["container"], "environment": {"ANEW": str(seed)}}
        given = {**task, "container": environment}
        at_work = fork(functools.partial(run, given))
        time.sleep(chance.uniform(0.1, 2.5))  # at a moment of the preparation, the start or the wait
        daemon.stop()
        result = outcome(at_work)
        assert result.get("failure") in (None, "environment"), result
        if "failure" in result:
            assert "Traceback" not in result["msg"]
            assert result["hint"], result
        daemon.start()
        assert "failed" not in run(given)
        facts = must(given)["database"]
        assert psql(facts, "select 6 * 7") == "42"
        must(given, state="absent")
        assert daemon.must("ps", "--all", "--quiet") == ""


def test_one_that_hangs_is_not_waited_for(daemon, task, monkeypatch):
    monkeypatch.setattr(_containers, "ANSWER_SECONDS", 1)
    with daemon.hanging():
        for more in ({}, {"state": "absent"}):
            began = time.monotonic()
            assert "Docker does not answer" in refused(task, "environment", **more)
            assert time.monotonic() - began < 10
