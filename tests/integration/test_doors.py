# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both doors of every module: the same calls, in process and sent as modules, have the same answers.

One play has all the calls, in an order in which some prepare the ground for others. It runs once through each door,
each time on surroundings that are made anew in the same places, so that paths and ports need no rewriting.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import json
import os
import pathlib
import re
import secrets
import shutil
import sys
import tempfile
import typing as t

import pytest
from integration.repos import Sample, make_template
from integration.workspaces import CLONE, EXAMPLE, Workspace, docker, remove_databases
from ports import free_base

from ansible_collections.parallel.worktrees.plugins.module_utils._secrets import DATABASE_PASSWORD

COLLECTION = "parallel.worktrees"
CHANGED, SAME, USER, ENVIRONMENT, BAD = "changed", "the same", "user", "environment", "bad argument"
IN_PROCESS, AS_MODULE = "in process", "as a module"

TREE = "{{ work }}/backend/.worktrees/fix"
PASSWORD = "{{ root }}/secrets/fix"
GIVEN_PASSWORD = "{{ work }}/backend/password"
NAME = "{{ workspace_name }}_fix"
OWNER = "{{ workspace_name }}/fix"
BACKEND = {"name": "backend", "path": TREE, "source": "{{ work }}/backend"}
SET_UP = {"name": "backend", "path": TREE}
REPO = {"repo": "{{ work }}/backend", "path": ".worktrees/fix", "branch": "fix"}
DATABASE = {
    "host": "127.0.0.1",
    "port": "{{ base }}",
    "user": NAME,
    "name": NAME,
    "password_file": PASSWORD,
    "url": f"postgresql://{NAME}:{DATABASE_PASSWORD}@127.0.0.1/",
}

PLAN: dict[str, t.Any] = {
    "workspace": "{{ workspace_name }}",
    "task": "fix",
    "facts": {"name": "fix", "worktrees": {}, "branches": {}, "database": {}},
    "worktrees": {"owner": OWNER, "worktrees": [{**REPO, "name": "backend", "submodules": ["migrations"]}]},
    "database": {"backend": "none", "name": NAME, "owner": OWNER},
}
USUAL: dict[str, dict[str, t.Any]] = {
    "db_code": {"directory": "{{ root }}/code"},
    "db_host_info": {"host_file": "{{ root }}/db_host.json"},
    "db_pool": {"store": "xfs", "root": "{{ root }}/pool", "file": "{{ root }}/pool.file", "size": "1G"},
    "db_source": {"name": "app", "host_file": "{{ root }}/db_host.json"},
    "db_source_info": {"host_file": "{{ root }}/db_host.json"},
    "ci_workflow": {"worktrees": [SET_UP], "checks": [{"name": "tests", "command": "make test"}]},
    "agent_file": {"worktrees": [SET_UP], "text": "Stay inside.", "files": [{"path": "AGENTS.md"}]},
    "env_file": {
        "worktrees": [BACKEND],
        "files": [
            {"repo": "backend", "path": ".env", "values": {"PORT": 15433, "TEXT": "ü", "SECRET": DATABASE_PASSWORD}},
            {
                "repo": "backend",
                "path": "more.env",
                "source": ".env",
                "patch_ports": True,
                "rewrite_paths": True,
                "overrides": {"LAST": "ü"},
            },
        ],
        "ports": {"web": 3001},
        "main_ports": {"web": 1},
        "shell": {
            "loaders": ["direnv", "mise"],
            "variables": {"NUMBER": 1, "TEXT": "it's", "SECRET": DATABASE_PASSWORD},
        },
        "password_file": GIVEN_PASSWORD,
    },
    "git_worktree": {
        "owner": OWNER,
        "worktrees": [
            {
                "name": name,
                "repo": f"{{{{ work }}}}/{name}",
                "path": ".worktrees/fix",
                "branch": "fix",
                "submodules": submodules,
            }
            for name, submodules in (("backend", ["migrations"]), ("app", []))
        ],
    },
    "git_worktree_info": {"path": TREE, "repos": [{"name": "backend", "repo": "{{ work }}/backend"}]},
    "pg_branch": {"name": NAME, "owner": OWNER, "host_file": "{{ root }}/db_host.json"},
    "pg_branch_info": {"host_file": "{{ root }}/db_host.json"},
    "path_reservation": {
        "workspace": "{{ workspace_name }}",
        "task": "fix",
        "repos": ["backend"],
        "paths": ["src/**/*.py"],
        "seconds": 90000,
    },
    "pg_database": {
        "backend": "container",
        "name": NAME,
        "owner": OWNER,
        "port": "{{ base + 2 }}",
        "container": {"image": "{{ database_image }}", "pull": "never"},
    },
    "pg_database_info": {"databases": {"one": DATABASE}},
    "port_lease": {
        "workspace": "{{ workspace_name }}",
        "owners": ["fix", "other"],
        "ports": {"web": {"base": "{{ base + 10 }}", "main": 3000}},
        "slots": {"strategy": "hash", "last": 5},
    },
    "task_exec": {"folder": "{{ root }}"},
    "task_info": {
        "workspace": "{{ workspace_name }}",
        "repos": [{"name": "backend", "repo": "{{ work }}/backend"}],
    },
    "task_prune": {"workspace": "{{ workspace_name }}", "apply": True},
    "task_record": {"workspace": "{{ workspace_name }}", "root": "{{ root }}", "task": "fix"},
    "task_plan": PLAN,
    "task_analysis": {"task": "fix", "worktrees": [SET_UP], "checks": [{"name": "here", "command": "pwd"}]},
    "task_gate": {"worktrees": [SET_UP], "checks": [{"name": "here", "command": "pwd"}], "title": "fix"},
    "worktree_hooks": {"worktrees": [{**SET_UP, "submodules": ["migrations"]}], "task": "fix"},
    "task_integration": {
        "workspace": "{{ workspace_name }}",
        "task": "fix",
        "worktrees": [{"name": "docs", "path": "{{ work }}/docs/.worktrees/merge"}],
        "target": "main",
        "directory": "{{ root }}/integration",
    },
    "worktree_processes": {"paths": [TREE]},
    "worktree_setup": {
        "worktrees": [
            {
                **SET_UP,
                "setup": [
                    {"command": "echo one", "inputs": [".env"]},
                    {"command": "pwd > build", "parallel": True},
                    {"command": "date > day", "parallel": True},
                ],
            }
        ]
    },
}
"""What every call of a module is given, beside what the call says."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a module, and how it is to end.

    :ivar keywords: what Ansible is told beside the arguments, such as ``check_mode``.
    """

    module: str
    end: str
    given: dict[str, t.Any]
    keywords: dict[str, t.Any]

    def __str__(self) -> str:
        words = (f"{key}={value}" for key, value in {**self.given, **self.keywords}.items())
        return f"{self.module} {' '.join(words)}: {self.end}"

    def as_task(self, name: str) -> dict[str, t.Any]:
        arguments = {**USUAL[self.module], **self.given}
        return {"name": name, f"{COLLECTION}.{self.module}": arguments, "ignore_errors": True, **self.keywords}


def call(module: str, end: str, *, check: bool = False, diff: bool = True, **given: t.Any) -> Call:
    return Call(module, end, given, {"check_mode": check, "diff": diff})


def life(module: str, refusal: dict[str, t.Any], **given: t.Any) -> list[Call]:
    """From nothing to present, what is refused there, and what is no argument."""
    return [
        call(module, CHANGED, check=True, **given),
        call(module, CHANGED, **given),
        call(module, SAME, diff=False, **given),
        call(module, USER, check=True, **{**given, **refusal}),
        call(module, BAD, nonsense=1),
    ]


def death(module: str, **given: t.Any) -> list[Call]:
    """From present to nothing."""
    return [call(module, CHANGED, check=check, state="absent", **given) for check in (True, False)]


FOREIGN = "{{ root }}/foreign"
GROUND = (
    f"mkdir -p vendor uploads {FOREIGN}/parallel_worktrees/theirs;"
    " date > uploads/day; echo PORT=1 > .env; echo hidden > password; echo out > secret.local;"
    " echo '*.local' > .worktreeinclude; echo '*.local' >> .git/info/exclude"
)
DB_HOST = {"store": "xfs", "root": "/dev/pts", "state": "{{ root }}/db_host", "bin_directory": "/usr/bin"}
DB_HOST |= {"user": "postgres", "source_user": "backup", "pooler_user": "proxy"}  # Debian has these everywhere
"""No DB host, but a machine that has a file about one, and something mounted where its pool should be."""
TO_MERGE = """
export GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z
git worktree add --quiet -b merge .worktrees/merge && git -C .worktrees/merge commit --quiet --allow-empty -m work
git switch --quiet --detach && echo /.worktrees/ >> .git/info/exclude
"""
PROBE = "pwd; umask; ulimit -n; readlink /proc/self/fd/0; env | grep -v RECORD_FILE | sort; printf '\\377 ü' >&2"
"""All that a command could see of the door it came through."""

VARIABLES = {"NUMBER": 1, "NOTHING": None, "TEXT": "ü", "SECRET": DATABASE_PASSWORD}
FACTS = {"name": "fix", "branch": "fix", "slot": 1, "ports": {"web": "{{ base + 11 }}"}, "worktrees": {"backend": TREE}}

FIRST = USUAL["git_worktree"]["worktrees"][0]
FILES = {"links": [{"path": "vendor"}], "copies": [{"path": "uploads"}]}
NO_WORKTREES: dict[str, t.Any] = {"worktrees": [], "files": [], "shell": None}
ANOTHER = "{{ workspace_name }}/another"
EMBEDDED: dict[str, t.Any] = {
    "backend": "embedded",
    "name": "server",
    "owner": "{{ workspace_name }}/server",
    "embedded": {"directory": "{{ root }}/clusters"},
    "port": "{{ base }}",
    "password_file": "{{ root }}/secrets/server",
}
SHARED: dict[str, t.Any] = {
    "backend": "shared",
    "user": NAME,
    "databases": [{"name": NAME, "connection_limit": 5}, {"name": NAME + "_two"}],
    "password_file": PASSWORD,
    "port": "{{ base }}",
    "shared": {"admin_password_file": "{{ root }}/secrets/server"},
}
"""Arguments for these back ends, the second in the server of the first."""

INNER = [call("task_plan", BAD, worktrees={"owner": OWNER, "worktrees": [REPO]})]
"""Arguments that only the module itself looks at."""

CALLS = [
    # A task, its lease and its worktrees
    *life("task_record", {"existing": "refuse", "branch": "another"}, state="provisioning"),
    *life("port_lease", {"owners": ["late"], "slots": {"first": 3, "last": 2}}),
    call("path_reservation", CHANGED, check=True),
    call("path_reservation", CHANGED),
    call("path_reservation", SAME, seconds=60),
    call("path_reservation", USER, paths=["../src"]),
    call("path_reservation", BAD, seconds="long"),
    *death("path_reservation"),
    call("task_plan", CHANGED, check=True),
    call("task_plan", CHANGED),
    call("task_plan", SAME, diff=False),
    call("task_plan", SAME, state="absent", processes={"paths": [TREE]}),
    call("task_plan", USER, database=PLAN["database"] | {"backend": "embedded"}),
    INNER[0],
    *life("git_worktree", {"worktrees": [{**USUAL["git_worktree"]["worktrees"][1], "branch": "main", "path": "x"}]}),
    call("git_worktree_info", SAME),
    call("git_worktree_info", SAME, check=True),
    call("git_worktree_info", USER, path="{{ root }}"),
    call("git_worktree_info", BAD, repos="backend"),
    # What is in them
    call("task_exec", CHANGED, command=GROUND, folder=BACKEND["source"]),
    call("git_worktree", CHANGED, check=True, worktrees=[{**FIRST, **FILES}]),
    call("git_worktree", CHANGED, worktrees=[{**FIRST, **FILES}]),
    call("git_worktree", SAME, worktrees=[{**FIRST, **FILES}]),
    call("git_worktree", USER, worktrees=[{**FIRST, "links": [{"path": "../out"}]}]),
    call("git_worktree", ENVIRONMENT, worktrees=[{**FIRST, "links": [{"path": "missing"}]}]),
    *life("env_file", {"files": [{"repo": "backend", "path": "../out", "content": "A=1\n"}]}),
    call("env_file", ENVIRONMENT, password_file="{{ root }}/missing"),
    call("env_file", BAD, files=[{"repo": "backend"}]),
    call("env_file", USER, shell={"variables": {"a.b": 1}}),
    call("env_file", CHANGED, path="{{ root }}/one.env", values={"PORT": 1}, **NO_WORKTREES),
    call("env_file", SAME, path="{{ root }}/one.env", values={"PORT": 1}, **NO_WORKTREES),
    *life("ci_workflow", {"file": "../out"}),
    *life("worktree_setup", {"worktrees": [{**SET_UP, "setup": [{"command": "true", "folder": "../.."}]}]}),
    call("worktree_setup", ENVIRONMENT, worktrees=[{**SET_UP, "setup": [{"command": "echo out; exit 3"}]}]),
    *life("worktree_hooks", {"checks": [{"name": "leaked", "databases": "%"}]}),
    *death("worktree_hooks"),
    call("task_analysis", SAME, start=False),
    call("task_analysis", CHANGED, wait=True, check=True),
    call("task_analysis", CHANGED, wait=True),
    call("task_analysis", USER, checks=[]),
    call("task_analysis", BAD, timeout="long"),
    call("task_gate", SAME),
    call("task_gate", SAME, check=True),
    call("task_gate", USER, checks=[{"name": "no", "command": "echo out; exit 3"}]),
    call("task_gate", ENVIRONMENT, worktrees=[{"name": "backend", "path": "{{ root }}/missing"}]),
    call("task_gate", BAD, stage="some"),
    call("task_exec", CHANGED, command=TO_MERGE, folder="{{ work }}/docs"),
    call("task_integration", CHANGED, check=True),
    call("task_integration", USER, checks=[{"name": "no", "command": "exit 3"}]),
    call("task_integration", CHANGED),
    call("task_integration", SAME),
    call("task_integration", USER, target="missing"),
    call("task_integration", BAD, nonsense=1),
    *life("agent_file", {"files": [{"path": "../AGENTS.md"}]}),
    # What runs in them
    call("task_exec", CHANGED, command=PROBE, title="fix", variables=VARIABLES, password_file=GIVEN_PASSWORD),
    call("task_exec", CHANGED, command="pwd", folder="."),
    call("task_exec", CHANGED, command="pwd", check=True),
    call("task_exec", USER, command="echo out; echo err >&2; exit 3"),
    call("task_exec", ENVIRONMENT, command="pwd", folder="{{ root }}/missing"),
    call("task_exec", BAD),
    call("task_exec", CHANGED, command="sleep 300 > /dev/null 2>&1 &", folder=TREE),
    call("worktree_processes", CHANGED, check=True),
    call("worktree_processes", CHANGED),
    call("worktree_processes", SAME, diff=False),
    call("worktree_processes", USER, paths=["{{ root }}"]),
    call("worktree_processes", BAD, grace="long"),
    # DB hosts
    *life("db_code", {"directory": FOREIGN}),
    call("db_pool", CHANGED, check=True),
    call("db_pool", USER, file="{{ work }}/backend/.env", devices=["/dev/null"]),
    call("db_pool", USER, check=True, file="{{ work }}/backend/.env"),
    call("db_pool", BAD, store="ext4"),
    # Databases
    *life("pg_database", {"owner": ANOTHER}, **EMBEDDED),
    *life("pg_database", {"owner": ANOTHER}, **SHARED),
    call("pg_database_info", SAME, format="text"),
    call("pg_database_info", SAME, format="json", check=True),
    call("pg_database_info", USER, database="missing"),
    call("pg_database_info", ENVIRONMENT, migration_query="nonsense"),
    call("pg_database_info", BAD, format="prose"),
    *death("pg_database", **SHARED),
    call("pg_database", SAME, state="absent", **SHARED),
    *death("pg_database", **EMBEDDED),
    *life("pg_database", {"user": "another"}),
    *death("pg_database"),
    call("pg_database", SAME, backend="none"),
    # A DB host
    call("task_exec", CHANGED, command=f"echo '{json.dumps(DB_HOST)}' > {{{{ root }}}}/db_host.json", folder="."),
    call("db_source_info", SAME),
    call("db_source_info", SAME, check=True),
    call("db_source_info", USER, name="missing"),
    call("db_source_info", BAD, nonsense=1),
    call("db_source", SAME, state="absent"),
    call("db_source", SAME, state="absent", check=True),
    call("db_source", USER),
    call("db_source", USER, check=True, host_file="{{ root }}/missing.json"),
    call("db_source", BAD, state="refreshed"),
    call("db_host_info", SAME, format="text"),
    call("db_host_info", SAME, check=True, format="json"),
    call("db_host_info", USER, host_file="{{ root }}/missing.json"),
    call("db_host_info", BAD, format="prose"),
    call("pg_branch_info", SAME),
    call("pg_branch_info", SAME, check=True),
    call("pg_branch_info", USER, host_file="{{ root }}/missing.json"),
    call("pg_branch_info", BAD, nonsense=1),
    call("pg_branch", SAME, state="absent"),
    call("pg_branch", SAME, state="absent", check=True),
    call("pg_branch", USER, source="missing", password="of the task"),
    call("pg_branch", USER, check=True, expires="soon"),
    call("pg_branch", BAD, state="gone"),
    # How all of it stands, what is left over, and the end
    call("task_record", CHANGED, state="ready", facts={**FACTS, "database": {}}),
    call("task_info", SAME, format="table"),
    call("task_info", SAME, format="json", check=True),
    call("task_info", USER, task="missing"),
    call("task_info", BAD, format="prose"),
    call("task_prune", SAME, apply=False),
    call("task_prune", CHANGED, check=True),
    call("task_prune", CHANGED),
    call("task_prune", ENVIRONMENT, registry="{{ work }}/app/README"),
    call("task_prune", BAD, nonsense=1),
    call("task_exec", CHANGED, command="echo work > unsaved", folder=TREE),
    call("git_worktree", USER, state="absent"),
    *death("git_worktree", force=True),
    *death("port_lease"),
    *death("task_record"),
]


# The two runs


class Surroundings(Workspace):
    """Where the calls are made: repositories, a state folder, and what remove_databases goes by."""

    def command(self, verb: str, *options: str, **variables: t.Any) -> list[str]:
        program = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
        return [program, verb, "-e", json.dumps({**self.variables, **variables}), *options]


@dataclasses.dataclass
class Answers:
    """What a door answered.

    :ivar results: of each call, in order.
    :ivar sent: the modules that Ansible sent, as often as it did.
    """

    results: list[dict[str, t.Any]]
    sent: collections.Counter[str]


@pytest.fixture(scope="module")
def answers(tmp_path_factory, postgres_image, pg_binaries) -> dict[str, Answers]:  # noqa: ARG001 - EMBEDDED's
    """What each door answered."""
    folder = tmp_path_factory.mktemp("doors")
    make_template(folder / "template")
    tasks = [one.as_task(str(number)) for number, one in enumerate(CALLS)]
    (folder / "calls.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    own = secrets.token_hex(3)
    variables = {"workspace_name": f"doors_{own}", "database_image": f"doors-{own}:15", "base": free_base()}
    # Another spelling of the same Python is all that it takes to have a module sent.
    pythons = {IN_PROCESS: sys.executable, AS_MODULE: "/./".join(os.path.split(sys.executable))}
    # Not below pytest's own folder: the server's system user has to get there.
    with tempfile.TemporaryDirectory(prefix="doors-", dir="/tmp") as top:
        os.chmod(top, 0o711)
        return {
            door: _answers(
                pathlib.Path(top), folder, postgres_image, {**variables, "ansible_python_interpreter": python}
            )
            for door, python in pythons.items()
        }


def _answers(top: pathlib.Path, folder: pathlib.Path, image: str, variables: dict[str, t.Any]) -> Answers:
    """Make all the calls, on fresh surroundings."""
    sample = Sample(top / "sample", folder / "template")
    ours = {"root": str(sample.root), "work": str(sample.work), "database_directory": str(sample.root / "clusters")}
    space = Surroundings(sample.root, EXAMPLE, top / "state", {**variables, **ours})
    space.environment = {"ANSIBLE_KEEP_REMOTE_FILES": "true", "ANSIBLE_REMOTE_TEMP": str(top / "remote")}
    docker("tag", image, variables["database_image"])
    try:
        done = space.start(str(folder / "calls.yml")).end(600).must()  # a call takes a second where much else goes on
        sent = [path.stem.removeprefix("AnsiballZ_") for path in top.glob("remote/*/AnsiballZ_*.py")]
    finally:
        remove_databases(space)
        for left in top.iterdir():
            shutil.rmtree(left)
    results = {one["step"]: one["result"] for one in done.results if "step" in one}
    return Answers([results[str(number)] for number in range(len(CALLS))], collections.Counter(sent))


# The comparison


def ended(result: dict[str, t.Any]) -> str:
    if "what it takes: ansible-doc" in str(result.get("hint")):
        return BAD
    return str(result.get("failure") or (CHANGED if result["changed"] else SAME))


VARYING = re.compile(
    r"""
    (?<=@)[0-9a-f]{8}\b  # the id of the registry
    | \b[0-9a-f]{64}\b  # the id of a container
    | \b[0-9a-f]{40}\b | (?<=at[ ])[0-9a-f]{12}\b  # a commit
    | \b\d{8}T\d{6}Z\b  # when work was saved
    | \b\d{10}\.\d+  # when a task was registered
    | (?<="seconds":[ ])\d+\.\d+  # how long a check took
    | \b\d{4}-\d\d-\d\d[ ]\d\d:\d\d:\d\d\b  # when a reservation ends
    | \b\d+[ ](s|min)\b[ ]*  # how long ago that was
    | (?<=[ ])[ ]+  # the width of the column that tells it
    | (?<="pid":[ ])\d+ | (?<=process[ ])\d+ | \d+(?=[ ]\(sleep\)) | (?<="started":[ ])"?\d+"?  # a process
    """,
    re.VERBOSE,
)
"""What differs from one run to the next."""


def alike(result: dict[str, t.Any]) -> t.Any:
    return json.loads(VARYING.sub("0", json.dumps(result)))


@pytest.mark.parametrize(
    ("number", "one"),
    list(enumerate(CALLS)),
    ids=[f"{number}-{one.module}-{one.end}" for number, one in enumerate(CALLS)],
)
def test_a_call_has_one_answer(answers, number, one):
    here, there = (answers[door].results[number] for door in (IN_PROCESS, AS_MODULE))
    assert ended(here) == one.end, f"{one}: {here}"
    assert alike(here) == alike(there), one


def test_each_door_was_the_one_it_was_meant_to_be(answers):
    assert answers[IN_PROCESS].sent == {}
    # Arguments are looked at before anything is sent.
    assert answers[AS_MODULE].sent == collections.Counter(one.module for one in CALLS if one.end != BAD or one in INNER)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CLONE / "plugins" / "modules").glob("*.py")))
def test_every_module_with_two_doors_has_its_calls(name):
    module = importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.modules.{name}")
    calls = [one for one in CALLS if one.module == name]
    assert bool(calls) == hasattr(module, "operation")
    if calls:
        ends = {one.end for one in calls}
        assert BAD in ends
        assert ends & {CHANGED, SAME}
        assert ends & {USER, ENVIRONMENT}
        assert {one.keywords["check_mode"] for one in calls} == {False, True}
