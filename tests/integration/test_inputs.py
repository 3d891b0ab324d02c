# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people get wrong, and what machines do: each is told in a line with the way out, and nothing is lost or left."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess

import pytest
from integration import workspaces
from integration.workspaces import docker, file_system, git, snapshot

from ansible_collections.parallel.worktrees.plugins.module_utils import _leases
from ansible_collections.parallel.worktrees.plugins.module_utils._door import filled

ONE = [{"name": "docs"}]


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A workspace without databases."""
    with workspaces.bautista(tmp_path_factory.mktemp("inputs")) as made:
        yield made


@pytest.fixture
def untouched(space):
    """Nothing in the repositories and the registry is touched by the test."""
    before = snapshot(space.root)
    yield space
    assert workspaces.differences(before, snapshot(space.root)) == []
    assert space.records() == []


# Names


NAMES = [
    "x" * 300,
    "..",
    "a/b",
    "-rf",
    "a;b",
    "ünï",
    ".hidden",
    "a..b",
    "x.lock",
    "HEAD",
    "a b",
    "$(id)",
    "good,../bad",
]


@pytest.mark.parametrize(("verb", "name"), [*(("provision", name) for name in NAMES), ("teardown", "..")])
def test_a_task_name_that_is_none(untouched, verb, name):
    message = untouched.run(verb, task=name).refused("user")
    first, *rest = message.splitlines()
    assert "task name" in first
    assert name[:40].split(",")[-1] in first
    assert [line[:6] for line in rest] == ["hint: "]


@pytest.mark.parametrize("name", ["", " ", "a,,b"])
def test_no_task_name(untouched, name):
    untouched.provision(name).refused("user", "name", "-e task=")


def test_a_count_that_is_none(untouched):
    untouched.provision("agent", count="0").refused("user", "count=0")
    untouched.provision("agent", count="many").refused("user", "count")
    untouched.provision("a,b", count="2").refused("user", "count=2")


def test_a_branch_name_that_is_none(untouched):
    untouched.provision("fix", branch="a..b").refused("user", "'a..b'")


# Repositories


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing", "there is no folder"),
        ("plain", "is not a git repository"),
        ("bare", "is a bare repository"),
        ("empty", "has no commit yet"),
        ("docs/src", "is a folder inside the repository"),
    ],
)
def test_a_path_that_is_no_repository(space, path, words):
    (space.root / "plain").mkdir(exist_ok=True)
    (space.root / "empty").mkdir(exist_ok=True)
    git(space.root / "empty", "init", "--quiet")
    if not (space.root / "bare").exists():
        git(space.root, "clone", "--quiet", "--bare", "docs", "bare")
    before = snapshot(space.root)
    run = space.provision("wrong", worktrees_repos=[*ONE, {"name": "other", "path": path}], env_files=[])
    run.refused("user", "repository other", words, str(space.root / path))
    assert workspaces.differences(before, snapshot(space.root)) == []
    assert space.traces("wrong") == []


def test_a_base_that_nobody_has(untouched):
    run = untouched.provision("based", worktrees_repos=[{"name": "docs", "base": "nowhere"}], env_files=[])
    run.refused("user", "repository docs", "nowhere", "branch --all")


def test_a_base_that_only_the_remote_has(space):
    docs = space.repository("docs")
    theirs = space.root / "theirs"
    git(space.root, "clone", "--quiet", "origins/docs.git", "theirs")
    git(theirs, "switch", "--quiet", "--create", "develop")
    tip = workspaces.commit(theirs, "theirs.txt")
    git(theirs, "push", "--quiet", "origin", "develop")
    run = space.provision("based", worktrees_repos=[{"name": "docs", "base": "develop"}], env_files=[]).must()
    assert git(space.worktree("docs", "based"), "rev-parse", "HEAD") == tip
    assert run.failures == []
    space.teardown("based").must()
    git(docs, "branch", "--quiet", "--delete", "--force", "based")
    shutil.rmtree(theirs)


def test_a_template_that_cannot_be_read(untouched):
    run = untouched.provision("wrong", database_backend="{{ a b }}", env_files=[])
    run.refused("user", "{{ a b }} is no template that can be read")


def test_a_template_of_what_nobody_set(untouched):
    run = untouched.provision("wrong", database_backend="{{ nobody_set_it }}", env_files=[])
    assert run.code == 2, run
    assert "'nobody_set_it' is undefined" in run.failures[-1]["msg"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "{{ task_facts.ports.databse }}",
            ["task_facts.ports has no databse; did you mean database?", "has: database"],
        ),
        ("{{ task_facts.port }}", ["task_facts has no port; did you mean ports?"]),
        ("{{ nobody_set_it }}", ["'nobody_set_it' is undefined"]),
        ("{{ 1 / 0 }}", ["division by zero"]),
    ],
)
def test_a_template_that_the_facts_of_the_task_do_not_fill(untouched, value, words):
    files = [{"repo": "backend", "path": ".env.test"}, {"repo": "docs", "path": ".env", "values": {"PORT": value}}]
    untouched.provision("wrong", env_files=files).refused("user", "env_files[1].values.PORT", *words)


def test_a_template_for_a_repository_that_the_task_does_not_take(space):
    values = {"PORT": "{{ task_facts.worktrees.backend }}"}
    other = space.varied(env_files=[{"repo": "backend", "path": ".env", "values": values}])
    other.provision("other", repos="docs").must()
    other.teardown("other").must()


def test_a_variable_of_the_workspace_file_that_no_role_reads(untouched, tmp_path):
    file = tmp_path / "workspace.yml"
    file.write_text(untouched.file.read_text() + "worktrees_fodler: x\nmy_own: y\n")
    wrong = untouched.varied()
    wrong.file = file
    message = wrong.provision("wrong").refused("user", str(file), "worktrees_fodler; did you mean worktrees_folder?")
    assert "my_own" not in message


@pytest.mark.parametrize("verb", ["provision", "exec", "reserve"])
def test_a_value_that_ansible_cuts_at_a_space(untouched, verb):
    run = untouched.run(verb, "-e", "command=make test", task="any", paths="src/**")
    run.refused("user", "belong to no variable: test", "two kinds of quotes")


def test_a_call_for_one_repository_leaves_the_others_of_a_task(space):
    both = space.varied(worktrees_repos=[*ONE, {"name": "informes"}], env_files=[])
    both.provision("both").must()
    run = both.provision("both", repos="docs").must()
    assert str(space.worktree("informes", "both")) in run.stdout
    assert "without a worktree" not in run.stdout
    both.teardown("both").must()


def test_an_unknown_repository_in_repos(untouched):
    untouched.provision("some", repos="docs,nope").refused("user", "nope", "backend, app, informes, docs")


def test_an_unknown_repository_for_a_task_that_is_there(space):
    space.provision("some", repos="docs").must()
    before = snapshot(space.root)
    space.provision("some", repos="nope").refused("user", "nope")
    assert workspaces.differences(before, snapshot(space.root)) == []
    assert space.task("some")["state"] == "ready"
    space.teardown("some").must()


@pytest.mark.parametrize("verb", ["exec", "gate", "integrate", "reserve", "release"])
def test_a_repository_that_the_task_does_not_have(space, verb):
    """Nothing was done there, so nothing has succeeded."""
    space.provision("some", repos="docs").must()
    more = {"exec": {"command": "true"}, "reserve": {"paths": "src"}}.get(verb, {})
    run = space.run(verb, task="some", repos="docs,app", **more)
    run.refused("user", "repos=docs,app names app, which task some does not have", "docs")
    space.teardown("some").must()


def test_a_command_in_several_repositories(space):
    space.provision("some", repos="docs,app").must()
    run = space.run("exec", task="some", repos="docs,app", command="basename ${PWD%/.worktrees/*}").must()
    assert "some docs:\ndocs\n" in run.stdout
    assert "some app:\nbautista-app\n" in run.stdout
    run = space.run("exec", task="some", repos="all", command="echo in $PWD; false")
    for name in ("docs", "app"):
        assert f"in {space.worktree(name, 'some')}" in run.output
    space.teardown("some").must()


@pytest.mark.parametrize(
    ("repos", "words"),
    [
        ([{"name": "docs", "lnks": ["vendor"]}], "lnks"),
        ([{"path": "docs"}], "name"),
        (["docs", "docs"], "more than once"),
        ([], "empty"),
    ],
)
def test_a_wrong_entry_in_worktrees_repos(untouched, repos, words):
    untouched.provision("typo", worktrees_repos=repos, env_files=[]).refused("user", "worktrees_repos", words)


def test_a_branch_that_is_checked_out_elsewhere(space):
    elsewhere = space.root / "elsewhere"
    git(space.repository("docs"), "worktree", "add", "--quiet", "-b", "busy", str(elsewhere))
    (elsewhere / "work").write_text("mine")
    before = snapshot(space.root)
    space.provision("busy").refused("user", "repository docs", "busy", str(elsewhere))
    assert workspaces.differences(before, snapshot(space.root)) == []
    git(space.repository("docs"), "worktree", "remove", "--force", str(elsewhere))
    git(space.repository("docs"), "branch", "--quiet", "--delete", "busy")
    assert space.traces("busy") == []


def test_a_worktree_folder_with_foreign_content(space):
    place = space.worktree("docs", "foreign")
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("years of work")
    before = snapshot(space.root)
    space.provision("foreign").refused("user", "repository docs", str(place))
    # Nor does a teardown or a prune take what is not ours.
    space.teardown("foreign").refused("user", "foreign")
    space.run("prune", apply="true", force="true").must()
    assert workspaces.differences(before, snapshot(space.root)) == []
    shutil.rmtree(place.parent)
    assert space.traces("foreign") == []


def test_a_worktree_folder_that_leads_out(space, tmp_path):
    link = space.repository("docs") / ".worktrees"
    link.symlink_to(tmp_path)
    before = snapshot(space.root, tmp_path)
    space.provision("outside").refused("user", str(link), str(tmp_path))
    assert workspaces.differences(before, snapshot(space.root, tmp_path)) == []
    link.unlink()
    assert space.traces("outside") == []


# Work that would be lost


def test_a_teardown_that_would_lose_work(space):
    space.provision("dirty", repos="docs,app").must()
    (space.worktree("docs", "dirty") / "new.txt").write_text("an idea")
    before = snapshot(space.root)
    space.teardown("dirty").refused("user", "new.txt", "force=true")
    assert workspaces.differences(before, snapshot(space.root)) == []
    assert space.status()["tasks"][0]["slot"] is not None
    run = space.teardown("dirty", force="true").must()
    assert not space.worktree("docs", "dirty").exists()
    saved = run.result("git_worktree")["saved"]
    assert [one["name"] for one in saved] == ["docs"]
    assert saved[0]["restore"].replace(" ", "") in "".join(run.stdout.split())
    subprocess.run(saved[0]["restore"], shell=True, check=True, capture_output=True)
    assert (space.worktree("docs", "dirty") / "new.txt").read_text() == "an idea"
    git(space.repository("docs"), "worktree", "remove", "--force", str(space.worktree("docs", "dirty")))


@pytest.mark.parametrize("word", ["push", "keep_database"])
def test_a_teardown_of_which_a_word_is_neither_true_nor_false(space, word):
    space.provision("kept", repos="docs").must()
    before = snapshot(space.root)
    space.teardown("kept", **{word: "ture"}).refused("user", word, "'ture'", "true or false")
    assert workspaces.differences(before, snapshot(space.root)) == []
    assert space.task("kept")["state"] == "ready"
    space.teardown("kept", **{word: "false"}).must()


# Ports and slots


def test_a_port_that_somebody_else_has(space):
    base = space.variables["lease_ports"]["database"]["base"]
    with socket.create_server(("127.0.0.1", base + 1)):
        run = space.provision("second", repos="docs").must()
    assert space.slots() == {"second": 2}
    assert f"slot 1 was passed over: port {base + 1} (database)" in run.stdout
    space.teardown("second").must()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"lease_ports": {"database": {"bse": 1}}}, ["lease_ports.database", "base"]),
        ({"lease_ports": {"database": 15432}}, ["lease_ports.database", "base"]),
        ({"lease_ports": {"database": {"base": "high"}}}, ["lease_ports.database", "whole numbers"]),
        ({"lease_ports": {"database": {"base": 65500}}}, ["65599", "65535"]),
        ({"lease_ports": ["database"]}, ["ports"]),
        ({"lease_slots": {"first": 5, "last": 2}}, ["from 5 to 2"]),
        ({"lease_slots": {"frist": 5}}, ["frist"]),
        ({"lease_slots": {"strategy": "best"}}, ["best"]),
        ({"lease_slot": 100}, ["slot 100", "1 to 99"]),
    ],
)
def test_a_lease_that_makes_no_sense(untouched, variables, words):
    untouched.provision("leased", **variables).refused("user", *words)


def lease(**given):
    _leases.operation(filled(_leases.ARGUMENT_SPEC, given), check=False)


def test_all_slots_are_used(untouched, tmp_path):
    registry = str(tmp_path / "registry")
    common = {"registry": registry, "workspace": untouched.name, "slots": None}
    ports = untouched.variables["lease_ports"]
    holders = [f"holder-{number}" for number in range(1, 100)]
    lease(**common, owners=holders, ports=ports)
    run = untouched.provision("one-more", workspace_registry=registry)
    message = run.refused("user", "one-more", "all slots from 1 to 99 are taken", "1: holder-1,", "99: holder-99")
    assert "parallel.worktrees.teardown" in message
    lease(**common, owners=holders[41:42], state="absent")
    run = untouched.provision("one-more", "--check", workspace_registry=registry).must()
    assert run.result("task_record", step="Register")["leases"][0]["slot"] == 42


# The registry


def test_a_damaged_registry(space, tmp_path):
    registry = tmp_path / "registry"
    registry.write_bytes(b"not a database at all" * 100)
    before = snapshot(space.root, registry)
    for verb in ("provision", "teardown", "status"):
        space.run(verb, task="any", workspace_registry=str(registry)).refused(
            "environment", str(registry), "put it aside"
        )
    assert workspaces.differences(before, snapshot(space.root, registry)) == []


def test_a_registry_with_torn_pages(space, tmp_path):
    registry = tmp_path / "registry"
    lease(registry=str(registry), workspace=space.name, owners=["a"], slots=None)
    content = registry.read_bytes()
    registry.write_bytes(content[:100] + os.urandom(len(content) - 100))
    space.provision("any", workspace_registry=str(registry)).refused("environment", str(registry))
    assert space.traces("any") == []


def test_a_registry_on_a_full_disk(space, tmp_path):
    before = snapshot(space.root)
    with file_system(tmp_path, "size=128k"):
        registry = tmp_path / "registry"
        space.provision("first", "--check", workspace_registry=str(registry)).must()
        with open(tmp_path / "filler", "wb") as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
                filler.flush()
        space.provision("full", workspace_registry=str(registry)).refused("environment", str(registry))
        os.unlink(tmp_path / "filler")
        assert workspaces.differences(before, snapshot(space.root)) == []
        space.provision("full", repos="docs", workspace_registry=str(registry)).must()
        space.teardown("full", workspace_registry=str(registry)).must()
    assert space.remains() == []


def test_a_read_only_registry(space, tmp_path):
    registry = str(tmp_path / "registry")
    with file_system(tmp_path, "size=1m") as remount:
        space.provision("kept", repos="docs", workspace_registry=registry).must()
        assert remount("ro") == 0
        before = snapshot(space.root)
        space.provision("more", workspace_registry=registry).refused("environment", registry)
        space.teardown("kept", workspace_registry=registry).refused("environment", registry)
        assert workspaces.differences(before, snapshot(space.root)) == []
        # Looking needs no writing.
        assert [task["name"] for task in space.status(workspace_registry=registry)["tasks"]] == ["kept"]
        assert remount("rw") == 0
        space.teardown("kept", workspace_registry=registry).must()
    assert space.remains() == []


# Docker


def test_docker_that_does_not_answer(untouched, tmp_path):
    socket_path = f"unix://{tmp_path}/docker.sock"
    run = untouched.provision("stopped", database_backend="container", database_docker_host=socket_path)
    run.refused("environment", socket_path, "systemctl start docker")


@pytest.mark.usefixtures("docker_client")
def test_an_image_that_is_not_there(untouched):
    run = untouched.provision(
        "imageless", database_backend="container", database_image="no-such-image:1", database_pull="never"
    )
    run.refused("environment", "no-such-image:1", "docker pull")
    assert workspaces.containers("imageless") == []


def test_a_container_name_that_is_taken(untouched, postgres_image):
    name = f"clash-{untouched.name[-6:]}"
    container = docker("create", "--name", f"postgres_bautista_testing_{name}", postgres_image, "sleep", "1")
    try:
        run = untouched.provision(name, database_backend="container", database_image=postgres_image)
        run.refused("user", f"postgres_bautista_testing_{name}", "not one of ours", "docker inspect")
        untouched.run("prune", apply="true", force="true", database_backend="container").must()
        assert docker("inspect", "--format", "{{.Id}} {{.State.Status}}", container) == f"{container} created"
    finally:
        docker("rm", container)


# Env files


@pytest.fixture
def main_env(space):
    path = space.repository("backend") / ".env.test"
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def test_an_env_file_that_is_not_there(space, main_env):
    main_env.unlink()
    run = space.provision("envless")
    run.refused("environment", "repository backend", str(main_env), "missing")
    main_env.write_text("DB_PORT=1\n")
    # The same call goes on where it stopped.
    space.provision("envless").must()
    assert "DB_PORT" in (space.worktree("backend", "envless") / ".env.test").read_text()
    space.teardown("envless").must()
    assert space.traces("envless") == []


def test_an_env_file_that_is_not_utf_8(space, main_env):
    main_env.write_bytes(b"# M\xfcnchen\nDB_PORT=1\n")
    space.provision("latin").refused("environment", str(main_env), "0xfc", "offset 3", "iconv")
    space.teardown("latin").must()
    assert space.traces("latin") == []


@pytest.mark.parametrize(
    ("content", "newline"),
    [(b"# first\r\nDB_PORT=1\r\nOTHER='kept as it is' # why\r\n", b"\r\n"), (b"OTHER=1\nDB_PORT=1", b"\n")],
    ids=["CRLF", "no final newline"],
)
def test_an_env_file_of_another_shape(space, main_env, content, newline):
    main_env.write_bytes(content)
    space.provision("shaped").must()
    base = space.variables["lease_ports"]["database"]["base"]
    lines = (space.worktree("backend", "shaped") / ".env.test").read_bytes().split(newline)
    kept = content.replace(b"DB_PORT=1", b"DB_PORT=%d" % (base + 1)).rstrip(b"\r\n").split(newline)
    assert lines[: len(kept)] == kept
    assert all(line.count(b"=") == 1 for line in lines[len(kept) : -1])
    assert lines[-1] == b""
    assert main_env.read_bytes() == content
    space.teardown("shaped").must()


# Tasks that are not there


def test_a_task_that_nobody_knows(untouched):
    untouched.teardown("nobody").refused("user", "nobody", "status")
    untouched.run("exec", task="nobody;id", command="true").refused("user", "nobody;id")
    untouched.run("status", task="no/body").refused("user", "no/body")


def test_a_task_name_that_is_nearly_right(space):
    space.provision("fix-login", repos="docs").must()
    space.teardown("fix-logni").refused("user", "did you mean fix-login?")
    space.teardown("fix-login").must()
