# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second call changes nothing; a dry run touches nothing and tells what a real one would do; a diff hides secrets."""

from __future__ import annotations

import json
import shutil

import pytest
from integration import workspaces
from integration.workspaces import REPOSITORIES, docker, git, snapshot


@pytest.fixture(scope="module")
def space(tmp_path_factory, postgres_image):
    with workspaces.bautista(tmp_path_factory.mktemp("again"), image=postgres_image) as made:
        yield made


@pytest.fixture(scope="module")
def task(space):
    """A task that is ready."""
    name = f"ready-{space.name[-6:]}"
    space.provision(name).must()
    return name


def everything(space):
    """All that a run could touch: files with their times, the registry's bytes, Docker's containers and images."""
    mine = ("--filter", f"name={space.name[-6:]}")
    return {
        **snapshot(space.root, space.state),
        "containers": docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}", *mine),
        "images": docker(
            "images",
            "--all",
            "--format",
            "{{.Repository}}:{{.Tag}}",
            "--filter",
            "label=parallel-worktrees.base=" + space.variables["database_image"],
        ),
    }


def actions(run):
    """What a run did, or would do; a real one starts the database before it makes the worktrees."""
    return sorted(
        action for one in run.results for action in (one.get("result") or {}).get("actions") or [] if counts(one)
    )


def counts(one):
    """The preflight and the verdict say beforehand what a later step does."""
    return not str(one.get("step")).startswith(("Preflight", "Verdict"))


# Again


@pytest.mark.main_job
def test_a_second_provision_changes_nothing(space, task):
    before = snapshot(space.root)
    slots = space.slots()
    run = space.provision(task, "--diff").must()
    assert run.changed == 0
    assert {host: counts["changed"] for host, counts in run.recap.items()} == {"localhost": 0, task: 0}
    assert workspaces.differences(before, snapshot(space.root)) == []
    assert space.slots() == slots
    assert f"{task}: ready, registered before" in run.stdout
    assert actions(run) == []


@pytest.mark.main_job
def test_a_second_teardown_says_that_there_is_nothing(space):
    name = f"short-{space.name[-6:]}"
    space.varied(database_backend="none").provision(name, repos="docs").must()
    assert space.teardown(name).must().changed
    before = everything(space)
    run = space.teardown(name).must()
    assert run.changed == 0
    assert f"{name}: nothing to tear down" in run.stdout
    assert workspaces.differences(before, everything(space)) == []


def test_a_file_that_was_lost_is_given_again(space, task):
    path = space.worktree("backend", task) / ".env.test"
    content = path.read_text()
    path.unlink()
    link = space.worktree("app", task) / "node_modules"
    link.unlink()
    run = space.provision(task).must()
    assert path.read_text() == content
    assert link.is_symlink()
    assert actions(run) == [f"link {link} from {space.repository('app') / 'node_modules'}", f"write {path}"]


def test_edits_of_the_team_are_kept(space, task):
    path = space.worktree("backend", task) / ".env.test"
    path.write_text(path.read_text() + "DEBUG=1\n")
    run = space.provision(task).must()
    assert run.changed == 0
    assert path.read_text().endswith("DEBUG=1\n")


# Dry


def dry(space, verb, **variables):
    """A dry run that touches nothing; returns what it says."""
    before = everything(space)
    run = space.run(verb, "--check", "--diff", **variables).must()
    assert workspaces.differences(before, everything(space)) == []
    assert "dry run: nothing is changed" in run.output
    return run


@pytest.mark.main_job
def test_a_dry_provision_of_a_new_task(space):
    name = f"new-{space.name[-6:]}"
    planned = dry(space, "provision", task=name)
    assert space.task(name) is None
    done = space.provision(name, "--diff").must()
    assert actions(planned) == actions(done)
    assert f"{name}: would be ready" in planned.stdout
    told = space.provision(name, "--check", format="json").must()
    assert json.loads(told.stdout)["state"] == "would be ready"
    assert changed_steps(planned) | {"Start the database"} == changed_steps(done)
    # And back.
    planned = dry(space, "teardown", task=name)
    assert f"{name}: would be torn down" in planned.stdout
    assert all(space.worktree(repo, name).exists() for repo in REPOSITORIES)
    done = space.teardown(name, "--diff").must()
    assert actions(planned) == actions(done)
    assert changed_steps(planned) == changed_steps(done)


def changed_steps(run):
    return {
        one["step"]
        for one in run.results
        if one["outcome"] == "ok" and one["result"].get("changed") and one["step"] != "Verdict"
    }


def test_a_dry_run_where_nothing_was_ever_done(space, tmp_path):
    """Not even the folder of the registry is made."""
    fresh = space.varied()
    fresh.state = tmp_path / "state"
    before = everything(fresh)
    fresh.provision("first", "--check", "--diff").must()
    fresh.run("status").must()
    fresh.run("prune", apply="true").must()
    fresh.teardown("first", "--check").refused("user", "there is no task first")
    assert workspaces.differences(before, everything(fresh)) == []
    assert not fresh.state.exists()


def test_a_dry_provision_of_a_task_that_is_there(space, task):
    planned = dry(space, "provision", task=task)
    assert planned.changed == 0
    assert actions(planned) == []


def test_a_dry_provision_of_a_task_that_is_half_there(space, task):
    docs = space.worktree("docs", task)
    shutil.rmtree(docs)
    (space.worktree("app", task) / "php" / "constants.php").unlink()
    docker("stop", f"postgres_bautista_testing_{task}")
    planned = dry(space, "provision", task=task)
    assert f"{task}: would be ready, registered before" in planned.stdout
    done = space.provision(task, "--diff").must()
    assert actions(planned) == actions(done)
    assert f"make worktree {docs} on branch {task}" in actions(done)
    assert space.task(task)["drift"] == []
    port = space.task(task)["ports"]["database"]
    assert workspaces.psql("select 1", port=port, password=space.password(task)) == "1"


def test_a_dry_run_refuses_what_the_real_one_would(space, task):
    work = space.worktree("docs", task) / "work.txt"
    work.write_text("not committed")
    before = everything(space)
    dry_message = space.teardown(task, "--check").refused("user", "work.txt")
    assert workspaces.differences(before, everything(space)) == []
    assert space.teardown(task).refused("user", "work.txt") == dry_message
    work.unlink()
    name = f"taken-{space.name[-6:]}"
    git(space.repository("docs"), "switch", "--quiet", "--create", name)
    before = everything(space)
    dry_message = space.provision(name, "--check").refused("user", "checked out")
    assert workspaces.differences(before, everything(space)) == []
    assert space.provision(name).refused("user", "checked out") == dry_message
    git(space.repository("docs"), "switch", "--quiet", "main")


def test_a_dry_prune(space):
    name = f"gone-{space.name[-6:]}"
    space.varied(database_backend="none").provision(name, repos="docs").must()
    shutil.rmtree(space.worktree("docs", name))
    before = everything(space)
    run = space.run("prune", "--check", apply="true").must()
    assert run.changed == 1
    assert f"{space.name}/{name}" in run.stdout
    assert workspaces.differences(before, everything(space)) == []
    space.run("prune", apply="true").must()
    assert space.traces(name) == []


# Secrets


def test_a_diff_hides_secrets(space):
    """Those that the workspace's files hold and the task's own, before and after."""
    name = f"diff-{space.name[-6:]}"
    main = space.repository("backend") / ".env.test"
    content = main.read_text()
    main.write_text(content + "MAIL_TOKEN=of-the-mail\nQUEUE=amqp://me:of-the-queue@localhost/\n")
    values = {"DB_PASSWORD": "{{ task_facts.database.password }}", "MAIL_TOKEN": "t0k3n", "QUEUE": "amqp://me:n3w@h/"}
    url = "psql://app:{{ task_facts.database.password }}@localhost"
    files = [
        {"repo": "backend", "path": ".env.test", "values": values},
        {"repo": "app", "path": "php/constants.php", "content": f"<?php const URL = '{url}';\n"},
    ]
    try:
        first = space.provision(name, "--diff", "-vvv", env_files=files).must()
        password = space.password(name)
        path = space.worktree("backend", name) / ".env.test"
        written = path.read_text()
        assert f"DB_PASSWORD={password}\n" in written
        assert password in (space.worktree("app", name) / "php" / "constants.php").read_text()
        path.write_text(written.replace(password, "an-old-password"))
        second = space.provision(name, "--diff", "-vvv", env_files=files).must()
        assert path.read_text() == written
        for run in (first, second):
            assert "+DB_PASSWORD=********" in run.stdout
            for secret in (password, "an-old-password", "of-the-mail", "of-the-queue"):
                assert secret not in run.output
                assert secret not in str(run.results)
    finally:
        main.write_text(content)
    space.teardown(name, force="true").must()
    assert space.traces(name) == []
