# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/ala.yml does what its team's own script did: numbered workers, patched ports, rules for the agents."""

from __future__ import annotations

import os
import pathlib
import pty
import re
import secrets
import subprocess
import sys
import tomllib

import pytest
from integration import workspaces
from integration.workspaces import CLONE, git, snapshot
from ports import free_base

EXAMPLE = CLONE / "examples" / "ala.yml"
NPM = """#!/bin/sh
mkdir -p node_modules
echo "npm $* in $PWD" >>"$NPM_LOG"
"""


class Ala(workspaces.Workspace):
    """The workspace of examples/ala.yml."""

    def repository(self, name: str = "ala") -> pathlib.Path:
        return self.root / name

    def worktree(self, name: str, task: str = "") -> pathlib.Path:  # noqa: ARG002 - of its one repository
        return self.repository() / ".worktrees" / name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ala")
    root = folder / "work"
    sample = (sys.executable, CLONE / "scripts" / "sample_workspace.py", root, "--shape", "ala")
    subprocess.run(sample, check=True)
    variables = {"workspace_root": str(root), "workspace_name": f"ala-{secrets.token_hex(3)}"}
    space = Ala(root, EXAMPLE, folder / "state", variables)
    space.state.mkdir()
    programs = folder / "bin"
    programs.mkdir()
    (programs / "npm").write_text(NPM)
    (programs / "npm").chmod(0o755)
    paths = f"{programs}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    space.environment = {"PATH": paths, "NPM_LOG": str(folder / "npm.log")}
    return space


@pytest.fixture
def space(made):
    """The workspace, left without tasks."""
    yield made
    made.run("teardown", all_tasks="true", force="true").must()
    assert made.records() == []


# Workers


@pytest.mark.main_job
def test_a_worker_as_its_script_made_one(space):
    space.provision("login", branch="feat/login").must()
    tree = space.worktree("login")
    number = space.slots()["login"]  # 1, unless a server of this machine has its ports
    frontend, backend = 3000 + 100 * number, 5000 + 100 * number
    assert workspaces.worktrees(space.repository()) == {tree: "feat/login"}
    assert (tree / ".env").read_text() == (
        f"# settings of the main tree\nPORT={frontend}\nBACKEND_PORT={backend}\n"
        f"API_URL=http://localhost:{backend}/api\nCORS_ORIGIN=http://localhost:{frontend}\nTIMEOUT=5000\n"
        "DATABASE_URL=postgresql://app@localhost:5432/ala\n"
    )
    log = pathlib.Path(space.environment["NPM_LOG"])
    assert log.read_text() == f"npm install in {tree}\n"
    assert git(tree, "status", "--porcelain", "--untracked-files=all") == ""
    # Hidden from git in the main tree too, whose files are as they were.
    assert git(space.repository(), "status", "--porcelain", "--untracked-files=all") == ""
    assert "PORT=3000\n" in (space.repository() / ".env").read_text()
    assert space.provision("login", branch="feat/login").must().changed == 0
    assert log.read_text().count("npm") == 1


def test_worker_numbers_and_nine_at_most(space):
    base = free_base()
    ports = {"frontend": {"base": base, "stride": 10}, "backend": {"base": base + 5, "stride": 10}}
    bare = space.varied(
        worktrees_repos=[{"name": "ala"}], env_files=[], agents_files=[], env_shell=[], lease_ports=ports
    )
    bare.provision("fourth", lease_slot=4).must()
    assert bare.slots() == {"fourth": 4}
    assert bare.task("fourth")["ports"] == {"frontend": base + 40, "backend": base + 45}
    bare.provision("again", lease_slot=4).refused("user", "slot 4 is not free", "4: fourth")
    bare.provision("worker", count=8).must()
    assert sorted(bare.slots().values()) == list(range(1, 10))
    bare.provision("tenth").refused("user", "all slots from 1 to 9 are taken", "4: fourth")


def test_list_remove_and_clean_all(space):
    bare = space.varied(worktrees_repos=[{"name": "ala"}])
    bare.provision("a,b,c").must()
    listed = bare.run("status").must().stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["a", "b", "c"]
    bare.teardown("b").must()
    assert sorted(bare.slots()) == ["a", "c"]
    bare.run("teardown", all_tasks="true").must()
    assert bare.slots() == {}
    assert not (bare.repository() / ".worktrees").exists()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(space):
    before = snapshot(space.root)
    run = space.provision("dry", "--check", "--diff").must()
    tree = space.worktree("dry")
    for words in (str(tree), ".env", "CLAUDE.md", "npm install"):
        assert words in run.output, str(run)
    assert workspaces.differences(before, snapshot(space.root)) == []
    assert space.records() == []


def test_the_database_is_one_for_all(space):
    space.provision("a,b").must()
    urls = {workspaces.env_values(space.worktree(name) / ".env")["DATABASE_URL"] for name in "ab"}
    assert urls == {"postgresql://app@localhost:5432/ala"}


# Rules


def test_rules_are_delivered_to_agents(space):
    space.provision("login", branch="feat/login", agents_program="claude", agents_description="mend it").must()
    tree = space.worktree("login")
    thin = (tree / "CLAUDE.md").read_text()
    assert ".claude/settings.md" in thin
    assert len(thin.splitlines()) < 6
    rules = (tree / ".claude" / "settings.md").read_text()
    ports = space.task("login")["ports"]
    for words in (
        str(tree),
        str(ports["frontend"]),
        "Stay inside",
        "other worktrees",
        "A person merges",
        "only analyse",
    ):
        assert words in rules
    spawn = (tree / ".claude" / "commands" / "spawn.md").read_text()
    assert spawn.startswith("---\ndescription: ")
    assert "parallel.worktrees.analyze" in spawn
    assert "-e task=login" in spawn
    assert space.task("login")["agent"] == {"program": "claude", "description": "mend it"}
    assert "claude: mend it" in space.run("status").must().stdout
    # Said once, it stays; and one thing can be said anew.
    space.provision("login", agents_model="opus").must()
    assert space.task("login")["agent"] == {"program": "claude", "description": "mend it", "model": "opus"}


def test_a_project_with_rules_of_its_own_keeps_them(space):
    repository = space.repository()
    workspaces.commit(repository, "CLAUDE.md", "of the project\n")
    try:
        run = space.provision("login").must()
        assert f"{space.worktree('login')}/CLAUDE.md was left alone: git tracks it" in run.stdout
        assert (space.worktree("login") / "CLAUDE.md").read_text() == "of the project\n"
        assert (space.worktree("login") / ".claude" / "settings.md").exists()
    finally:
        git(repository, "reset", "--quiet", "--hard", "HEAD~1")


# Environment and commands


def test_helpers_analyse_in_the_background_and_leave_a_report_each(space):
    space.provision("login").must()
    tree = space.worktree("login")
    before = git(tree, "status", "--porcelain", "--ignored")
    checks = ["test", "lint", "review", "security", "coverage"]
    run = space.run("analyze", task="login", wait="true").must()
    reports = {one["name"]: pathlib.Path(one["file"]).read_text() for one in run.result("task_analysis")["reports"]}
    assert sorted(reports) == sorted(checks)
    # The npm of these tests writes what it does into its log, and nothing into the worktree.
    assert git(tree, "status", "--porcelain", "--ignored") == before
    for name in checks:
        assert name in run.stdout


def test_the_environment_is_there_to_be_sourced(space):
    space.provision("login").must()
    script = '. ./.task.env; printf %s "$TASK_NAME"'
    done = subprocess.run(["sh", "-c", script], cwd=space.worktree("login"), check=True, capture_output=True, text=True)
    assert done.stdout == "login"
    assert ". ./.task.env" in (space.worktree("login") / ".envrc").read_text()
    mise = space.varied(env_shell=["mise"])
    mise.provision("login").must()
    assert tomllib.loads((space.worktree("login") / "mise.local.toml").read_text())["env"]["_"]["source"]


def test_exec_in_one_several_and_all(space):
    bare = space.varied(worktrees_repos=[{"name": "ala"}], agents_files=[])
    bare.provision("a,b,c").must()
    run = bare.run("exec", task="b", command='echo "$TASK_NAME $TASK_SLOT $PWD"').must()
    assert f"b:\nb {bare.slots()['b']} {bare.worktree('b')}\n" in run.stdout
    assert "a:\n" not in run.stdout
    # At the same time: each waits for the other.
    other = '../$([ "$TASK_NAME" = a ] && echo c || echo a).here'
    wait = f"for i in $(seq 200); do [ -e {other} ] && echo met && exit; sleep 0.05; done; exit 1"
    run = bare.run("exec", task="a,c", command=f"touch ../$TASK_NAME.here; {wait}").must()
    assert "a:\nmet\n" in run.stdout
    assert "c:\nmet\n" in run.stdout
    for name in "ac":
        (bare.repository() / ".worktrees" / f"{name}.here").unlink()
    # One that fails neither stops nor hides the others.
    run = bare.run("exec", all_tasks="true", command='echo "from $TASK_NAME"; test $TASK_NAME != b')
    assert run.code != 0
    assert [one["msg"] for one in run.failures if "'echo" in one["msg"] and "ended with 1" in one["msg"]]
    for name in "abc":
        assert f"from {name}" in run.output
    assert {name: host["failures"] for name, host in run.recap.items() if name in "abc"} == {"a": 0, "b": 1, "c": 0}
    run = bare.run("exec", task="a", command="exit 7")
    assert run.failures[-1]["msg"] == f"in {bare.worktree('a')}, 'exit 7' ended with 7"
    bare.run("exec", task="a").refused("user", "no command is given")


def test_use_renews_a_lease_that_would_end(space):
    bare = space.varied(worktrees_repos=[{"name": "ala"}], agents_files=[], lease_expires_after=3600)
    bare.provision("a").must()
    first = bare.task("a")["expires"]
    bare.run("exec", task="a", command="true").must()
    assert bare.task("a")["expires"] > first
    with bare.opened_registry() as connection:
        connection.execute("update lease set expires = 1 where owner = 'a'")
    run = bare.provision("b").must()
    assert "slot 1 of a" in run.stdout or bare.slots().get("a") is None
    assert bare.task("a")["drift"] == ["no lease"]
    # Its files still name ports that are another's by now.
    for verb in ("exec", "gate"):
        bare.run(verb, task="a", command="true").refused("user", "a of workspace", "has no lease any more")
    assert bare.task("a")["drift"] == ["no lease"]
    bare.provision("a").must()
    assert bare.task("a")["drift"] == []


# Log


def test_the_log_is_coloured_on_a_terminal_and_plain_elsewhere(space):
    plain = space.run("status").must()
    assert "\x1b" not in plain.output
    run = space.provision("fresh", "--check").must()
    assert "\x1b" not in run.output
    seen = terminal(space, "provision", "--check", task="fresh")
    assert re.search(r"\x1b\[[0-9;]+m", seen), seen


def terminal(space, verb, *options, **variables) -> str:
    """What a run prints on a terminal."""
    master, slave = pty.openpty()
    environment = {**space.environ(os.devnull), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        space.command(verb, *options, **variables),
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        cwd=space.folder,
        env=environment,
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
        assert process.wait() == 0, seen.decode()
    os.close(master)
    return seen.decode()
