# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/meal_planner.yml does what its team's own scripts did: agents, quality gates, one integration branch.

The tests share a workspace; each has agents of its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time

import pytest
import yaml
from integration import workspaces
from integration.workspaces import CLONE, commit, git
from ports import free_base

EXAMPLE = CLONE / "examples" / "meal_planner.yml"
PROGRAM = """#!/bin/sh
# Stands for the project's own tools: it writes down what it is asked, and fails where a file says so.
echo "${0##*/} $* in $PWD" >>"$TOOLS_LOG"
case $* in
    build) test ! -e broken_build ;;
    test) test ! -e broken_test && { test ! -e one_dish || test ! -e other_dish; } ;;
    *health) test -n "$DATABASE_URL" ;;
esac
"""


class MealPlanner(workspaces.Workspace):
    """The workspace of examples/meal_planner.yml."""

    def repository(self, name: str = "meal_planner") -> pathlib.Path:
        return self.root / name

    @property
    def origin(self) -> pathlib.Path:
        return self.root / "origins" / "meal_planner.git"

    def worktree(self, name: str, task: str = "") -> pathlib.Path:  # noqa: ARG002 - of its one repository
        return self.repository() / ".agent-worktrees" / name

    def asked(self, agent: str) -> list[str]:
        """What the tools were asked to do in the worktree of an agent, or wherever the path has this."""
        lines = pathlib.Path(self.environment["TOOLS_LOG"]).read_text().splitlines()
        return [line.partition(" in ")[0] for line in lines if f"/{agent}" in line.partition(" in ")[2]]

    def tips(self) -> dict[str, str]:
        """Integration and main, here and at the origin."""
        return {
            f"{where.name} {name}": git(where, "for-each-ref", "--format=%(objectname)", f"refs/heads/{name}")
            for where in (self.repository(), self.origin)
            for name in ("integration", "main")
        }

    def sql(self, agent: str, text: str) -> str:
        url = workspaces.env_values(self.worktree(agent) / ".env")["DATABASE_URL"]
        return subprocess.run(
            ["psql", "-qAtX", url, "-c", text], check=True, capture_output=True, text=True
        ).stdout.strip()


@pytest.fixture(scope="module")
def clusters(pg_binaries):  # noqa: ARG001 - they are made by them
    """Not below pytest's own folder: the servers' system user has to get there."""
    with tempfile.TemporaryDirectory(prefix="meals-", dir="/tmp") as folder:
        os.chmod(folder, 0o711)
        yield folder


@pytest.fixture(scope="module")
def space(tmp_path_factory, clusters):
    folder = tmp_path_factory.mktemp("meals")
    root = folder / "work"
    sample = (sys.executable, CLONE / "scripts" / "sample_workspace.py", root, "--shape", "meal_planner")
    subprocess.run(sample, check=True)
    variables = {
        "workspace_root": str(root),
        "workspace_name": f"meal_planner_{secrets.token_hex(3)}",
        "lease_ports": {"database": {"base": free_base()}},
        "database_directory": clusters,
    }
    made = MealPlanner(root, EXAMPLE, folder / "state", variables)
    made.state.mkdir()
    programs = folder / "bin"
    programs.mkdir()
    for name in ("gleam", "bd"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    paths = f"{programs}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    made.environment = {"PATH": paths, "TOOLS_LOG": str(folder / "tools.log")}
    try:
        yield made
    finally:
        made.run("teardown", all_tasks="true", force="true")
        workspaces.remove_databases(made)


def attempt(space, tree, *arguments):
    """Git as an agent runs it, with hooks."""
    environment = {**os.environ, **space.environment}
    return subprocess.run(["git", *arguments], cwd=tree, env=environment, check=False, capture_output=True, text=True)


def work(space, agent, file, text="work\n"):
    """A commit of an agent's."""
    tree = space.worktree(agent)
    (tree / file).write_text(text)
    git(tree, "add", "--", file)
    return attempt(space, tree, "commit", "--quiet", "--message", f"work on {file}")


def done(space, agent, file, text="work\n"):
    """An agent that has finished a task."""
    space.provision(agent).must()
    made = work(space, agent, file, text)
    assert made.returncode == 0, made.stderr


# Worktrees


@pytest.mark.main_job
def test_a_worktree_per_agent_on_a_branch_of_its_task(space):
    repository = space.repository()
    git(repository, "switch", "--quiet", "-c", "elsewhere")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "not for agents")
    space.provision("ada", agent_task="menu").must()
    git(repository, "switch", "--quiet", "main")
    assert workspaces.worktrees(space.repository())[space.worktree("ada")] == "agent-ada/menu"
    assert git(space.worktree("ada"), "rev-parse", "HEAD") == git(space.repository(), "rev-parse", "main")
    assert space.asked("ada") == ["bd init"]
    assert space.provision("ada", agent_task="menu").must().changed == 0
    assert space.asked("ada") == ["bd init"], "once"
    git(space.worktree("ada"), "switch", "--quiet", "--detach")
    space.run("gate", task="ada").refused("user", "branch failed", "detached HEAD")
    git(space.worktree("ada"), "switch", "--quiet", "agent-ada/menu")
    space.run("gate", task="ada").must()


@pytest.mark.main_job
def test_a_branch_per_agent_without_a_worktree(space):
    """The team's other way; all else is as with one."""
    repository = space.repository()
    branch = "agent-vic/soup"
    before = workspaces.snapshot(repository, times=False, without={".git"})
    space.run("provision", task="vic", agent_task="soup", worktrees_checkout="false").refused(
        "user", "env_files[0].repo is 'meal_planner', of which tasks have no worktree"
    )
    assert space.task("vic") is None
    other = space.varied(worktrees_checkout="false", env_files=[], agent_task="soup")
    dry = other.provision("vic", "--check").must()
    assert git(repository, "branch", "--list", branch) == ""
    run = other.provision("vic", agents_program="claude").must()
    assert f"meal_planner  branch {branch}, without a worktree" in run.stdout
    assert f"make branch {branch} of meal_planner" in str(dry.results)
    assert git(repository, "rev-parse", branch) == git(repository, "rev-parse", "main")
    assert not space.worktree("vic").exists()
    assert workspaces.snapshot(repository, times=False, without={".git"}) == before, "nobody's tree is touched"
    assert other.provision("vic").must().changed == 0
    assert space.provision("vic", agent_task="soup").must().changed == 0, "what it has was settled by the first call"
    task = space.task("vic")
    assert task["slot"]
    assert task["ports"]["database"]
    assert task["database"]["state"] == "running"
    assert task["agent"] == {"program": "claude"}
    assert task["drift"] == []
    [has] = task["worktrees"]
    assert (has["path"], has["branch"], has["state"]) == (None, branch, "branch only")
    assert "1 branch only" in space.run("status").must().stdout
    space.run("reserve", task="vic", paths="soups/**").must()
    space.run("exec", task="vic", command="true").refused("user", "vic has no worktree to run 'true' in")
    space.run("analyze", task="vic").refused("user", "task vic has no worktree")
    space.run("ci", task="vic").refused("user", "has no worktree")
    # Worked on where somebody checked it out.
    git(repository, "switch", "--quiet", branch)
    tip = commit(repository, "vic_soup")
    kept = space.varied(delete_branch="true")
    assert "meal_planner without a worktree" not in kept.teardown("vic", "--check").must().stdout
    git(repository, "switch", "--quiet", "main")
    kept.teardown("vic").refused("user", "work would be lost", "commits on no other branch")
    run = space.run("integrate", task="vic").must()
    assert "vic: integrated" in run.stdout
    assert tip in git(repository, "show", "--no-patch", "--format=%P", "main").split()
    assert len(set(space.tips().values())) == 1
    assert git(space.origin, "rev-parse", branch) == tip
    assert space.run("integrate", task="vic").must().changed == 0
    git(repository, "switch", "--quiet", branch)
    run = kept.teardown("vic", push="true").must()
    assert f"pushed  meal_planner: {branch} to origin" in run.stdout
    assert f"branch {branch} of meal_planner, which is checked out at {repository}" in run.stdout
    assert git(repository, "rev-parse", branch) == tip
    git(repository, "switch", "--quiet", "main")
    assert "parallel-worktrees" not in git(repository, "config", "--local", "--list")
    other.provision("vic").must()
    kept.teardown("vic").must()
    assert git(repository, "branch", "--list", branch) == ""
    assert space.task("vic") is None


@pytest.mark.main_job
def test_a_task_carries_who_works_on_it(space):
    who = {"program": "claude", "model": "opus", "description": "Plan a week of dinners"}
    space.provision("una", **{f"agents_{key}": value for key, value in who.items()}).must()
    assert space.task("una")["agent"] == who
    table = space.run("status", task="una").must().stdout
    assert table.splitlines()[0].endswith("AGENT")
    assert "claude opus: Plan a week of dinners" in table
    space.provision("una", agents_model="sonnet").must()
    assert space.task("una")["agent"] == {**who, "model": "sonnet"}, "what is not said stays as it was"
    space.teardown("una").must()
    assert space.task("una") is None


# Gates


@pytest.mark.main_job
def test_the_commit_gate(space):
    space.provision("bo").must()
    tree = space.worktree("bo")
    assert work(space, "bo", "dish").returncode == 0
    assert space.asked("bo")[1:] == ["gleam build", "gleam test", "bd sync"]
    head = git(tree, "rev-parse", "HEAD")
    (tree / "broken_test").write_text("")
    failed = work(space, "bo", "dish", "more\n")
    assert failed.returncode != 0
    assert "meal_planner: tests failed" in failed.stderr
    assert space.asked("bo")[4:] == ["gleam build", "gleam test"], "the sync command comes after the tests"
    assert git(tree, "rev-parse", "HEAD") == head
    (tree / "broken_test").unlink()
    space.sql("bo", "create database test_db_1")
    warned = work(space, "bo", "dish", "more\n")
    assert warned.returncode == 0, warned.stderr
    assert "leaked test databases warned: leaked: test_db_1" in warned.stderr
    # Of that worktree alone.
    before = len(space.asked(""))
    commit(space.repository(), "by hand")
    assert len(space.asked("")) == before
    git(space.repository(), "push", "--quiet", "origin", "main")


@pytest.mark.main_job
def test_the_local_gate(space):
    space.provision("cy").must()
    tree = space.worktree("cy")
    run = space.run("gate", task="cy").must()
    assert [line.split(" passed")[0].strip() for line in run.stdout.splitlines() if " passed" in line] == [
        "meal_planner: build",
        "meal_planner: tests",
        "leaked test databases",
        "meal_planner: health",
        "meal_planner: branch",
    ]
    (tree / "broken_test").write_text("")
    space.sql("cy", "create database test_db_1")
    text = space.run("gate", task="cy").refused("user", "2 checks failed", "meal_planner: tests failed")
    assert "leaked test databases failed: leaked: test_db_1" in text
    checks = space.run("gate", task="cy").failures[-1]["checks"]
    assert {one["name"]: one["verdict"] for one in checks}["health"] == "skipped"
    # The same gate stands before clean-up.
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--no-verify", "--message", "broken")
    run = space.teardown("cy")
    assert "tests failed" in run.refused("user", "leaked: test_db_1")
    assert tree.exists()
    assert space.task("cy")["state"] == "ready"
    git(tree, "rm", "--quiet", "broken_test")
    git(tree, "commit", "--quiet", "--no-verify", "--message", "mended")
    run = space.run("gate", task="cy", drop_leaked="true").must()
    assert "dropped test_db_1" in run.stdout
    assert "test_db" not in space.sql("cy", "select string_agg(datname, ' ') from pg_database")
    space.teardown("cy").must()
    assert not tree.exists()


def test_a_red_gate_does_not_keep_what_is_given_up(space):
    space.provision("dot").must()
    (space.worktree("dot") / "broken_build").write_text("")
    space.teardown("dot", force="true").must()
    assert not space.worktree("dot").exists()


# Integration


@pytest.mark.main_job
def test_a_finished_task_goes_to_integration_and_main(space):
    done(space, "eve", "soup")
    tip = git(space.worktree("eve"), "rev-parse", "HEAD")
    run = space.run("integrate", task="eve").must()
    assert "eve: integrated" in run.stdout
    tips = space.tips()
    assert len(set(tips.values())) == 1
    merged = tips["meal_planner main"]
    assert tip in git(space.repository(), "show", "--no-patch", "--format=%P", merged).split()
    assert git(space.origin, "rev-parse", "agent-eve/work") == tip
    assert (space.repository() / "soup").exists(), "the main tree was clean, and has followed"
    assert space.asked("meal_planner-")[-3:] == ["gleam build", "gleam test", "gleam run -m health"], "in its own tree"
    assert space.run("integrate", task="eve").must().changed == 0


@pytest.mark.main_job
def test_a_conflict_and_a_red_gate_stop_nobody_else(space):
    for agent, file in (("fay", "one_dish"), ("gus", "other_dish"), ("hal", "salad"), ("ida", "salad"), ("jo", "cake")):
        done(space, agent, file, f"{agent}\n")
    (space.worktree("jo") / "broken_build").write_text("")
    run = space.run("integrate", task="hal,fay,ida,gus,jo")
    assert run.code != 0
    told = {one["msg"].splitlines()[0].partition(" (agent-")[0]: one for one in run.failures}
    assert sorted(one["failure"] for one in told.values()) == ["user", "user", "user"]
    text = run.output
    assert "jo: 1 check failed" in text, "its own gate, before anything is merged"
    assert "task ida (agent-ida/work) conflicts with integration in salad; every branch is as it was" in text
    assert "task gus was not integrated, every branch is as it was; the gate of integration: 1 check failed" in text
    assert "3 of 5 tasks failed: ida, gus, jo" in text
    assert "hal: integrated" in text
    assert "fay: integrated" in text
    listed = git(space.repository(), "ls-tree", "--name-only", "main").split()
    assert {"salad", "one_dish"} <= set(listed)
    assert "other_dish" not in listed
    assert git(space.repository(), "show", "main:salad") == "hal"
    subjects = git(space.repository(), "log", "--first-parent", "--format=%s", "-2", "integration").splitlines()
    assert [line.split("'")[1] for line in subjects] == ["agent-fay/work", "agent-hal/work"], "in the order named"
    assert len(set(space.tips().values())) == 1
    before = space.tips()
    dry = space.run("integrate", "--check", task="ida")
    dry.refused("user", "conflicts with integration in salad")
    assert space.tips() == before


# Protection


@pytest.mark.main_job
def test_nobody_pushes_straight_to_main(space):
    space.provision("kim").must()
    assert work(space, "kim", "tea").returncode == 0
    before = space.tips()
    for branch in ("main", "integration"):
        refused = attempt(space, space.worktree("kim"), "push", "origin", f"HEAD:{branch}")
        assert refused.returncode != 0
        assert f"branch {branch} is protected: task kim does not push to it" in refused.stderr
    assert space.tips() == before
    assert attempt(space, space.worktree("kim"), "push", "--quiet", "origin", "HEAD").returncode == 0


@pytest.mark.main_job
def test_the_forge_and_its_ci(space):
    space.provision("lea").must()
    tree = space.worktree("lea")
    url = git(space.repository(), "remote", "get-url", "origin")
    git(space.repository(), "remote", "set-url", "origin", "git@github.com:team/meal_planner.git")
    try:
        run = space.run("ci", task="lea").must()
    finally:
        git(space.repository(), "remote", "set-url", "origin", url)
    assert "gh api --method PUT repos/team/meal_planner/branches/main/protection" in run.stdout
    settings = json.loads(run.stdout.partition("<<'JSON'\n")[2].partition("\nJSON\n")[0])
    assert settings["required_pull_request_reviews"] == {"required_approving_review_count": 1}
    assert settings["required_status_checks"]["contexts"] == ["gate"]
    assert settings["required_linear_history"] is True
    assert settings["enforce_admins"] is True
    workflow = yaml.safe_load((tree / ".github" / "workflows" / "integration.yml").read_text())
    assert workflow[True]["push"] == {"branches": ["integration"]}
    job = workflow["jobs"]["gate"]
    assert job["services"]["postgres"]["image"] == "postgres:17"
    assert [one["name"] for one in job["steps"][1:]] == [
        "set up: bd init",
        "build",
        "tests",
        "leaked test databases",
        "health",
    ]
    assert git(space.repository(), "status", "--porcelain") == "", "the main tree is not touched"
    assert "?? .github/" in git(tree, "status", "--porcelain"), "it is committed like any other file"


# Reservations


@pytest.mark.main_job
def test_reservations(space):
    space.provision("mia,ned").must()
    began = time.time()
    run = space.run("reserve", task="mia", paths="src/**/*.gleam", reason="new parser").must()
    [reservation] = space.rows("select * from reservation")
    assert 7199 <= reservation["expires"] - began <= 7200 + time.time() - began
    assert "meal_planner: src/**/*.gleam until " in run.stdout
    text = space.run("reserve", task="ned", paths="docs,src/web/**").refused("user", "overlaps src/**/*.gleam")
    assert "task mia" in text
    assert "(new parser)" in text
    assert "reserved by mia: meal_planner: src/**/*.gleam" in space.run("status").must().stdout
    refused = work(space, "ned", "src/menu.gleam")
    assert refused.returncode != 0
    assert "src/menu.gleam is reserved by task mia" in refused.stderr
    assert work(space, "mia", "src/menu.gleam").returncode == 0
    space.run("release", task="mia").must()
    git(space.worktree("ned"), "add", "--all")
    assert attempt(space, space.worktree("ned"), "commit", "--quiet", "--message", "x").returncode == 0
    # It ends with its time, and with the task.
    space.run("reserve", task="mia", paths="docs/**", seconds="1").must()
    time.sleep(2)
    space.run("reserve", task="ned", paths="docs/**").must()
    space.run("release", task="ned").must()
    space.run("reserve", task="mia", paths="src/**").must()
    space.teardown("mia").must()
    assert space.rows("select * from reservation") == [], "it ends with the task"


# Analysis, as the agents of other teams have it


@pytest.mark.main_job
def test_helpers_only_analyze(space):
    space.provision("pia").must()
    checks = [{"name": "lint", "command": "cat README* .gitignore"}, {"name": "rude", "command": "touch written"}]
    helped = space.varied(analysis_checks=checks)
    run = helped.run("analyze", task="pia", wait="true").must()
    assert "pia: analyzed, meal_planner" in run.stdout
    assert "lint  " in run.stdout
    assert "rude  failed" in run.stdout
    assert "it tried to write, and the worktree is read-only to it" in run.stdout
    assert not (space.worktree("pia") / "written").exists()
    file = next(one["file"] for one in run.result("task_analysis")["reports"] if one["name"] == "rude")
    assert "Read-only file system" in pathlib.Path(file).read_text()
    again = helped.run("analyze", task="pia", report="true").must()
    assert again.changed == 0
    assert "rude  failed" in again.stdout
    helped.run("analyze", task="pia", checks="review").refused("user", "no check review", "choose from: lint, rude")


# Many at once


def test_a_fleet_of_thirty(space):
    """One command each; the one that fails neither stops nor hides the others."""
    checks = [one for one in workspaces.load(EXAMPLE)["gate_checks"] if one["name"] in ("build", "tests", "branch")]
    fleet = space.varied(
        workspace_name=f"{space.name}_fleet", database_backend="none", env_files=[], gate_checks=checks
    )
    began = time.monotonic()
    fleet.provision("agent", count="30").must()
    told = {"provision": time.monotonic() - began}
    agents = [f"agent-{number}" for number in range(1, 31)]
    for agent in agents:
        assert work(space, agent, f"dish of {agent}").returncode == 0
    (space.worktree("agent-7") / "broken_build").write_text("")
    git(space.worktree("agent-7"), "add", "--all")
    git(space.worktree("agent-7"), "commit", "--quiet", "--no-verify", "--message", "broken")
    fine = [agent for agent in agents if agent != "agent-7"]
    for verb in ("gate", "integrate", "teardown"):
        began = time.monotonic()
        run = fleet.run(verb, all_tasks="true")
        told[verb] = time.monotonic() - began
        assert run.code != 0, str(run)
        assert "1 of 30 tasks failed: agent-7" in run.output
    listed = git(space.repository(), "ls-tree", "-z", "--name-only", "main").split("\0")
    assert {f"dish of {agent}" for agent in fine} <= set(listed)
    assert "broken_build" not in listed
    assert [task["name"] for task in fleet.status()["tasks"]] == ["agent-7"]
    fleet.teardown("agent-7", force="true").must()
    print({verb: round(seconds, 1) for verb, seconds in told.items()})
