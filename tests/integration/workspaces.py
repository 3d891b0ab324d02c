# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample workspaces on real repositories, the playbooks run on them, and looks at what is there with the real tools."""

from __future__ import annotations

import collections.abc as c
import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import typing as t

import yaml
from ports import claimed_base

from ansible_collections.parallel.worktrees.plugins.module_utils import _clusters, _containers

CLONE = pathlib.Path(__file__).resolve().parents[2]
COLLECTIONS = pathlib.Path(_containers.__file__).absolute().parents[5]
EXAMPLE = CLONE / "examples" / "bautista.yml"
REPOSITORIES = {"backend": "bautista-backend", "app": "bautista-app", "informes": "informes", "docs": "docs"}


# Runs


@dataclasses.dataclass
class Run:
    """What a run of a playbook answered.

    :ivar results: every result of it, as the record callback wrote them.
    """

    command: list[str]
    code: int
    stdout: str
    stderr: str
    results: list[dict[str, t.Any]]

    def __str__(self) -> str:
        return f"{' '.join(self.command)}\nended with {self.code}\n{self.stdout}\n{self.stderr}"

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        return next((one["hosts"] for one in reversed(self.results) if one["outcome"] == "recap"), {})

    @property
    def changed(self) -> int:
        return sum(host["changed"] for host in self.recap.values())

    @property
    def failures(self) -> list[dict[str, t.Any]]:
        """The failed results that count: one that was rescued is told again by the rescue."""
        return [one["result"] for one in self.results if one["outcome"] in ("failed", "unreachable")]

    def result(self, action: str, *, step: str | None = None) -> dict[str, t.Any]:
        """The last result of a module of this collection."""
        return next(
            one["result"]
            for one in reversed(self.results)
            if one.get("action") == f"parallel.worktrees.{action}" and step in (None, one["step"])
        )

    def must(self) -> Run:
        assert self.code == 0, str(self)
        return self

    def refused(self, failure: str, *words: str) -> str:
        """See that the run failed as it should: with its class, a hint, these words and no traceback.

        Returns the message.
        """
        assert self.code not in (0, 250), str(self)
        assert self.failures, str(self)
        last = self.failures[-1]
        assert last.get("failure") == failure, str(self)
        assert last.get("hint"), str(self)
        message = str(last["msg"])
        for word in words:
            assert word in message, str(self)
        assert "Traceback" not in self.output, str(self)
        kind = {"user": "[user error]", "environment": "[environment error]", "partial": "[partial failure]"}[failure]
        assert kind in self.output, str(self)
        assert "hint: " in self.output, str(self)
        return message


class Workspace:
    """A workspace file, and the surroundings in which its playbooks run.

    :ivar root: the folder with the repositories.
    :ivar state: where the registry and the secrets are kept.
    :ivar file: given with each run, as all variables are; None where it has to be found.
    :ivar variables: given with each run, beside the workspace file.
    :ivar folder: where runs are started.
    :ivar playbook: what is typed for the playbook of a verb.
    """

    def __init__(
        self, root: pathlib.Path, file: pathlib.Path | None, state: pathlib.Path, variables: dict[str, t.Any]
    ) -> None:
        self.root = root
        self.file = file
        self.state = state
        self.variables = variables
        self.environment: dict[str, str] = {}
        self.inventory: pathlib.Path | None = None
        self.folder = root
        self.playbook = "parallel.worktrees.{}"

    def varied(self, **variables: t.Any) -> t.Self:
        """The same with other variables."""
        other = copy.copy(self)
        other.variables = {**self.variables, **variables}
        other.environment = dict(self.environment)
        return other

    def called_from(self, folder: pathlib.Path) -> t.Self:
        """The same, with its runs started elsewhere."""
        other = self.varied()
        other.folder = folder
        return other

    @property
    def name(self) -> str:
        return str(self.variables["workspace_name"])

    @property
    def registry(self) -> pathlib.Path:
        return self.state / "parallel-worktrees" / "registry.sqlite3"

    # The way a person does it: ansible-playbook parallel.worktrees.VERB -e task=NAME

    def command(self, verb: str, *options: str, **variables: t.Any) -> list[str]:
        words = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), self.playbook.format(verb)]
        if self.inventory:
            words += ["-i", str(self.inventory)]
        if self.file:
            words += ["-e", f"@{self.file}"]
        for name, value in {**self.variables, **variables}.items():
            plain = isinstance(value, str) and not set(value) & set(" '\"\\\n{}=")
            words += ["-e", f"{name}={value}" if plain else json.dumps({name: value})]
        return [*words, *options]

    def environ(self, record: str) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(CLONE / "examples" / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(pathlib.Path(__file__).parent / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "RECORD_FILE": record,
            "XDG_STATE_HOME": str(self.state),
            "PWD": str(self.root),
            **self.environment,
        }

    def start(self, verb: str, *options: str, **variables: t.Any) -> Started:
        """Begin a run in a process group of its own."""
        folder = self.state.parent / "runs"
        folder.mkdir(exist_ok=True)
        place = folder / secrets.token_hex(8)
        command = self.command(verb, *options, **variables)
        with open(f"{place}.out", "wb") as out, open(f"{place}.err", "wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=self.environ(f"{place}.json"),
                start_new_session=True,
            )
        return Started(process, command, str(place))

    def run(self, verb: str, *options: str, **variables: t.Any) -> Run:
        return self.start(verb, *options, **variables).end()

    def provision(self, task: str, *options: str, **variables: t.Any) -> Run:
        return self.run("provision", *options, task=task, **variables)

    def teardown(self, task: str, *options: str, **variables: t.Any) -> Run:
        return self.run("teardown", *options, task=task, **variables)

    def status(self, **variables: t.Any) -> dict[str, t.Any]:
        """What the status playbook prints as JSON."""
        run = self.run("status", format="json", **variables).must()
        return t.cast("dict[str, t.Any]", json.loads(run.stdout))

    def task(self, name: str) -> dict[str, t.Any] | None:
        """One task as the status playbook has it."""
        return next((task for task in self.status()["tasks"] if task["name"] == name), None)

    # What is there

    def repository(self, name: str) -> pathlib.Path:
        return self.root / REPOSITORIES[name]

    def worktree(self, name: str, task: str) -> pathlib.Path:
        return self.repository(name) / ".worktrees" / task

    def secrets(self, task: str) -> list[pathlib.Path]:
        """Whatever lies where the secrets of a task do."""
        folder = self.state / "parallel-worktrees" / "secrets" / self.name
        return [*folder.glob(task), *folder.glob(f"{task}@*"), *folder.glob(f"{task}@*/*")]

    def password(self, task: str) -> str:
        return next(path for path in self.secrets(task) if path.name == "database").read_text().strip()

    def rows(self, query: str, *values: t.Any) -> list[dict[str, t.Any]]:
        """What the registry's file has, read by SQLite itself; nothing where it was never written."""
        if not self.registry.exists() or not self.registry.stat().st_size:
            return []
        with self.opened_registry() as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    @contextlib.contextmanager
    def opened_registry(self) -> c.Iterator[sqlite3.Connection]:
        """A transaction in the registry's file."""
        with contextlib.closing(connection := sqlite3.connect(self.registry)), connection:
            yield connection

    def records(self) -> list[str]:
        """All that the registry has of this workspace's tasks."""
        tables = ("task", "lease", "port")
        return [
            f"{table} {row}"
            for table in tables
            for row in self.rows(f"select * from {table} where workspace = ?", self.name)
        ]

    def slots(self) -> dict[str, int]:
        found = self.rows("select owner, slot from lease where workspace = ?", self.name)
        return {row["owner"]: row["slot"] for row in found}

    def traces(self, task: str) -> list[str]:
        """All that a task has left anywhere, branches and saved work aside."""
        found = []
        for name in REPOSITORIES:
            repository = self.repository(name)
            common = repository / ".git"
            found += [f"{name} lists {path}" for path in worktrees(repository) if path.name == task]
            if (repository / ".worktrees" / task).exists() or any((repository / ".worktrees").glob(f".*{task}*")):
                found.append(f"{name} has the folder of {task}")
            for modules in (common, *(common / "modules").glob("*")):
                for admin in (modules / "worktrees").glob("*"):
                    if task in f"{admin.name} {_text(admin / 'gitdir')}":
                        found.append(f"{admin} is there")
        for table, column in (("task", "name"), ("lease", "owner"), ("port", "owner")):
            query = f"select * from {table} where workspace = ? and {column} = ?"
            found += [f"{table} {row}" for row in self.rows(query, self.name, task)]
        found += [f"{path} is there" for path in self.secrets(task)]
        for name in containers(task):
            found.append(f"container {name} is there")
        notes = self.state / "parallel-worktrees" / "containers"
        found += [f"{path} is there" for path in notes.glob(f"*{task}*")]
        found += [f"{path} is there" for path in temporary_files(self.root)]
        return found

    def remains(self) -> list[str]:
        """What must be gone when the last task is."""
        found = []
        for name in REPOSITORIES:
            repository = self.repository(name)
            found += [f"{path} is there" for path in (repository / ".worktrees").glob("*")]
            for common in (repository / ".git", *(repository / ".git" / "modules").glob("*")):
                found += [f"{path} is there" for path in (common / "worktrees").glob("*")]
                found += [f"{path} is there" for path in common.glob("parallel-worktrees*")]
                found += [f"{path} is there" for path in common.rglob("*.lock")]
                if "parallel.worktrees" in _text(common / "info" / "exclude"):
                    found.append(f"{common}/info/exclude has our block")
        found += [f"{path} is there" for path in temporary_files(self.root, self.state)]
        return found


@dataclasses.dataclass
class Started:
    """A run under way; its session is its own."""

    process: subprocess.Popen[bytes]
    command: list[str]
    place: str

    def end(self, timeout: float = 180) -> Run:
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill(group=True)
            code = -signal.SIGKILL
        lines = _text(pathlib.Path(f"{self.place}.json")).splitlines()
        return Run(
            self.command,
            code,
            _text(pathlib.Path(f"{self.place}.out")),
            _text(pathlib.Path(f"{self.place}.err")),
            [json.loads(line) for line in lines if line.endswith("}")],
        )

    def kill(self, *, group: bool) -> None:
        """End the main process, or all of its process group, at once."""
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()


def wait_for(what: c.Callable[[], t.Any], *, seconds: float = 20) -> t.Any:
    """Ask until the answer is empty, and return the last one."""
    deadline = time.monotonic() + seconds
    while (answer := what()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


# Making workspaces


def make_repositories(folder: pathlib.Path) -> None:
    """The four repositories of examples/bautista.yml, with origins beside them."""
    subprocess.run(
        [sys.executable, CLONE / "scripts" / "sample_workspace.py", folder, "--shape", "bautista"], check=True
    )


@contextlib.contextmanager
def bautista(folder: pathlib.Path, *, image: str | None = None, **variables: t.Any) -> c.Iterator[Workspace]:
    """The workspace of examples/bautista.yml on sample repositories, with nothing left of it at the end.

    :arg image: of its databases; without it they are none.
    """
    with claimed_base() as base:
        root = folder / "work"
        make_repositories(root)
        own = secrets.token_hex(3)
        given: dict[str, t.Any] = {
            "workspace_root": str(root),
            "workspace_name": f"bautista-{own}",
            "lease_ports": {"database": {"base": base}},
        }
        if image is None:
            given["database_backend"] = "none"
        else:
            # A name of the image's own, so that what is prepared of it is known as ours.
            given["database_image"] = f"acceptance-{own}:15"
            docker("tag", image, given["database_image"])
            given["database_pull"] = "never"
        state = folder / "state"
        state.mkdir()
        workspace = Workspace(root, EXAMPLE, state, {**given, **variables})
        try:
            yield workspace
        finally:
            remove_databases(workspace)


def remove_databases(workspace: Workspace) -> None:
    image = workspace.variables.get("database_image")
    if image:
        row = f'{{{{.Names}}}} {{{{.Label "{_containers.OWNER}"}}}}'
        for line in docker("ps", "--all", "--filter", f"label={_containers.OWNER}", "--format", row).splitlines():
            name, _space, owner = line.partition(" ")
            if owner.startswith(f"{workspace.name}/"):
                docker("rm", "--force", "--volumes", name)
        with _containers.connected(None) as client:
            for prepared in _containers.prepared_images(client):
                if prepared["base"] == image:
                    _containers.remove_prepared(client, prepared["key"])
        docker("rmi", image)
    directory = workspace.variables.get("database_directory")
    if directory:
        for found in _clusters.clusters(directory):
            _clusters.Cluster(directory, found["name"]).stop()


# The real tools


def git(folder: pathlib.Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def worktrees(repository: pathlib.Path) -> dict[pathlib.Path, str | None]:
    """The branches of a repository's linked worktrees, by folder, as git lists them."""
    blocks = git(repository, "worktree", "list", "--porcelain").split("\n\n")
    listed = [dict(line.partition(" ")[::2] for line in block.splitlines()) for block in blocks]
    return {
        pathlib.Path(one["worktree"]): one.get("branch", "").removeprefix("refs/heads/") or None for one in listed[1:]
    }


def commit(folder: pathlib.Path, file: str, text: str = "work\n") -> str:
    """Commit a file and return the commit."""
    (folder / file).write_text(text)
    git(folder, "add", "--", file)
    git(folder, "commit", "--quiet", "--message", f"work on {file}")
    return git(folder, "rev-parse", "HEAD")


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def containers(part: str = "") -> list[str]:
    """The names of all containers that have this in their name."""
    return [name for name in docker("ps", "--all", "--format", "{{.Names}}").split() if part in name]


def psql(sql: str, *, port: int, password: str, host: str = "127.0.0.1") -> str:
    found = subprocess.run(
        ["psql", "--no-psqlrc", "-h", host, "-p", str(port), "-U", "postgres", "-d", "postgres", "-Atqc", sql],
        env={**os.environ, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


Seen = dict[str, tuple[t.Any, ...]]


def snapshot(*tops: pathlib.Path, times: bool = True, without: c.Collection[str] = ()) -> Seen:
    """Everything under some folders: kind, mode, time and content of each path.

    :arg without: names that are passed over, with all below.
    """
    seen: Seen = {}
    for top in tops:
        _look(top, seen, times, without)
    return seen


def _look(path: pathlib.Path, seen: Seen, times: bool, without: c.Collection[str]) -> None:
    try:
        about = path.lstat()
    except FileNotFoundError:
        return
    when = about.st_mtime_ns if times else None
    if stat.S_ISLNK(about.st_mode):
        seen[str(path)] = ("link", when, os.readlink(path))
    elif stat.S_ISDIR(about.st_mode):
        seen[str(path)] = ("folder", stat.S_IMODE(about.st_mode), when)
        for entry in sorted(path.iterdir()):
            if entry.name not in without:
                _look(entry, seen, times, without)
    elif stat.S_ISREG(about.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        seen[str(path)] = ("file", stat.S_IMODE(about.st_mode), when, about.st_size, content)
    else:
        seen[str(path)] = ("other", stat.S_IMODE(about.st_mode))


def differences(before: Seen, after: Seen) -> list[str]:
    return [
        f"{path}: {before.get(path)} -> {after.get(path)}"
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ]


@contextlib.contextmanager
def file_system(folder: pathlib.Path, *options: str) -> c.Iterator[c.Callable[[str], t.Any]]:
    """A small file system of its own; needs root, or a sudo that asks nothing."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    owner = f"uid={os.getuid()},gid={os.getgid()}"
    subprocess.run([*sudo, "mount", "-t", "tmpfs", "-o", ",".join((owner, *options)), "none", str(folder)], check=True)
    try:
        yield lambda option: subprocess.call([*sudo, "mount", "-o", f"remount,{option}", str(folder)])
    finally:
        subprocess.run([*sudo, "umount", str(folder)], check=True)


def temporary_files(*tops: pathlib.Path) -> list[str]:
    """Neighbours that a file is written to before it takes its name."""
    return [str(path) for top in tops for path in top.rglob(".*.parallel-worktrees")]


def env_values(path: pathlib.Path) -> dict[str, str]:
    """What bash reads in an env file."""
    script = 'set -a; . "$1"; env -0'
    out = subprocess.run(
        ["bash", "-c", script, "-", str(path)],
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return dict(pair.split("=", 1) for pair in out.split("\0") if pair)


def load(path: pathlib.Path) -> t.Any:
    return yaml.safe_load(path.read_text())


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
