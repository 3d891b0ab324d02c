# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample repositories with origins beside them, the git modules run on them, and what git itself says of them."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import types
import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration.servers import fork, outcome

from ansible_collections.parallel.worktrees.plugins.module_utils import _git, _worktrees
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer

NAMES = ("backend", "app", "informes", "docs")
SPACE = "shop"

# A submodule's address that is a path is refused by git since CVE-2022-39253; here it is what it has to be.
FILE_PROTOCOL = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}

SCRIPT = """
import json, sys
from ansible_collections.parallel.worktrees.plugins.module_utils import _door, _worktrees
given = json.load(open(sys.argv[1]))
result = _door.answer(_worktrees.operation, given, check=False, diff=True)
print(json.dumps(result))
sys.exit(1 if result.get("failed") else 0)
"""

Result = dict[str, t.Any]


def git(folder: os.PathLike[str] | str, *arguments: str, **options: t.Any) -> str:
    """Git itself, in a folder, with the surroundings of a test."""
    done = subprocess.run(["git", "-C", folder, *arguments], check=False, capture_output=True, **options)
    assert done.returncode == 0, f"git -C {folder} {' '.join(arguments)}: {done.stderr.decode(errors='replace')}"
    return os.fsdecode(done.stdout).removesuffix("\n")


def make_template(root: pathlib.Path) -> None:
    """Four repositories with origins; the first has the submodule ``migrations`` with an origin of its own."""
    environment = {**os.environ, **FILE_PROTOCOL}
    remotes, work = root / "remotes", root / "work"
    for name in ("migrations", *NAMES):
        git(root.parent, "init", "--quiet", "--bare", "--initial-branch=main", str(remotes / f"{name}.git"))
        tree = work / name
        git(root.parent, "clone", "--quiet", str(remotes / f"{name}.git"), str(tree), stderr=None)
        for key, value in (("user.name", "Tester"), ("user.email", "tester@example.invalid"), ("gc.auto", "0")):
            git(tree, "config", key, value)
        (tree / "README").write_text(f"{name}\n")
        (tree / ".gitignore").write_text("*.log\n.env*\n/build/\nvendor/\nnode_modules\n")
        (tree / "src").mkdir()
        for number in range(8):
            (tree / "src" / f"file{number}").write_text(f"{name} {number}\n" * 20)
        if name == "backend":
            git(tree, "submodule", "--quiet", "add", "../migrations.git", "migrations", env=environment)
            for key, value in (("user.name", "Tester"), ("user.email", "tester@example.invalid")):
                git(tree / "migrations", "config", key, value)
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "--message", "first")
        git(tree, "push", "--quiet", "origin", "main")
    shutil.rmtree(work / "migrations")


class Sample:
    """A copy of the sample repositories.

    :ivar work: the folder with the main trees.
    :ivar remotes: the folder with their origins.
    """

    def __init__(self, root: pathlib.Path, template: pathlib.Path) -> None:
        shutil.copytree(template, root, symlinks=True)
        self.root = root
        self.work = root / "work"
        self.remotes = root / "remotes"
        for config in (*self.work.glob("*/.git/config"), *self.work.glob("*/.git/modules/*/config")):
            config.write_text(config.read_text().replace(str(template), str(root)))
        self.backend, self.app, self.informes, self.docs = (self.work / name for name in NAMES)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.work / name

    def tree(self, name: str, task: str = "fix") -> pathlib.Path:
        return self.work / name / ".worktrees" / task

    def cut_off(self) -> None:
        """Make the origins unreachable."""
        self.remotes.rename(self.root / "away")

    def forget_submodule(self) -> None:
        """Have the main tree as a clone without its submodule is."""
        git(self.backend, "submodule", "--quiet", "deinit", "--force", "migrations")
        shutil.rmtree(self.backend / ".git" / "modules")
        assert not list((self.backend / "migrations").iterdir())

    def member(self, name: str, task: str = "fix", **more: t.Any) -> dict[str, t.Any]:
        submodules = ["migrations"] if name == "backend" else []
        path = f".worktrees/{task}"
        given = {"name": name, "repo": str(self.work / name), "path": path, "branch": task, "submodules": submodules}
        return {**given, **more}

    def params(self, *names: str, task: str = "fix", **more: t.Any) -> dict[str, t.Any]:
        """Validated parameters of the module for a task; all repositories where none is named."""
        members = [self.member(name, task) for name in names or NAMES]
        checked = ArgumentSpecValidator(_worktrees.ARGUMENT_SPEC).validate(
            {"worktrees": members, "owner": f"{SPACE}/{task}", **more}
        )
        assert not checked.error_messages, checked.error_messages
        return t.cast("dict[str, t.Any]", checked.validated_parameters)

    def run(self, *names: str, check: bool = False, task: str = "fix", **more: t.Any) -> Result:
        """What the module answers, failures as well."""
        return answer(_worktrees.operation, self.params(*names, task=task, **more), check=check, diff=True)

    def make(self, *names: str, **more: t.Any) -> Result:
        return succeeded(self.run(*names, **more))

    def remove(self, *names: str, **more: t.Any) -> Result:
        return succeeded(self.run(*names, state="absent", **more))

    def run_as(self, user: int, *names: str, **more: t.Any) -> Result:
        """The same by another user, who takes these repositories for his own.

        In a fork, since that user may not be let in to where this Python lies.
        """
        trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}

        def act() -> Result:
            os.environ.update(trust)
            return self.run(*names, **more)

        return t.cast("Result", outcome(fork(act, user)))

    def start(self, *names: str, **more: t.Any) -> subprocess.Popen[bytes]:
        """The module as a process group of its own."""
        place = self.root / f"params-{time.monotonic_ns()}.json"
        place.write_text(json.dumps(self.params(*names, **more)))
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )

    def commons(self) -> list[pathlib.Path]:
        """The git directories of all repositories here."""
        return [*self.work.glob("*/.git"), *self.work.glob("*/.git/modules/*")]

    def traces(self, *, work_was_saved: bool = False) -> list[str]:
        """What must be gone when no task is left, branches aside; waits for what is deleted in the background."""
        deadline = time.monotonic() + 10
        while (found := self._traces(work_was_saved)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _traces(self, work_was_saved: bool) -> list[str]:
        found: list[pathlib.Path] = [*self.work.glob("*/.worktrees")]
        for common in self.commons():
            found += [*common.glob("worktrees"), *common.glob("parallel-worktrees*")]
            found += [] if work_was_saved else [*common.glob("refs/worktrees-saved/*")]
            found += common.rglob("*.lock")
            found += common.rglob("*.parallel-worktrees")
            if "parallel.worktrees" in (common / "info" / "exclude").read_text():
                found.append(common / "info" / "exclude")
        return [str(path) for path in found]


def call(idea: types.ModuleType, *, check: bool = False, **given: t.Any) -> Result:
    """What the module of an idea answers, failures as well."""
    checked = ArgumentSpecValidator(idea.ARGUMENT_SPEC).validate(given)
    assert not checked.error_messages, checked.error_messages
    return answer(idea.operation, checked.validated_parameters, check=check, diff=True)


def restore(result: Result) -> None:
    """Run the commands that the result of a removal gives."""
    for one in result["saved"]:
        done = subprocess.run(["/bin/sh", "-c", one["restore"]], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{one['restore']}: {done.stdout}{done.stderr}"


def succeeded(result: Result) -> Result:
    assert not result.get("failed"), result["msg"]
    return result


def refused(result: Result, failure: str, *words: str) -> str:
    """See that a result is a failure of this class with a hint, and these words in its text; returns the text."""
    assert result.get("failed"), result
    assert result["failure"] == failure, result["msg"]
    assert result["hint"], result["msg"]
    for word in words:
        assert word in result["msg"], result["msg"]
    return str(result["msg"])


def worktrees(repository: pathlib.Path) -> dict[str, str | None]:
    """Branches by the folder of each linked worktree that git lists; None where HEAD is detached."""
    listed = git(repository, "worktree", "list", "--porcelain", "-z").split("\0\0")
    entries = [dict(line.partition(" ")[::2] for line in block.split("\0") if line) for block in listed if block]
    return {
        one["worktree"]: one["branch"].removeprefix("refs/heads/") if "branch" in one else None for one in entries[1:]
    }


def branches(repository: pathlib.Path) -> list[str]:
    return git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads").split()


def saved(repository: pathlib.Path) -> list[str]:
    return git(repository, "for-each-ref", "--format=%(refname)", "refs/worktrees-saved").split()


def status(tree: pathlib.Path) -> str:
    return git(tree, "status", "--porcelain", "--untracked-files=all")


def commit(tree: pathlib.Path, name: str = "work", text: str = "work\n") -> str:
    """Commit a file and return the commit."""
    (tree / name).write_text(text)
    git(tree, "add", "--force", "--", name)
    git(tree, "commit", "--quiet", "--message", f"{name} changed")
    return git(tree, "rev-parse", "HEAD")


def count_git(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The git commands that are run from now on."""
    seen: list[tuple[str, ...]] = []
    run = _git._commands.run

    def counted(argv: t.Sequence[str], **options: t.Any) -> t.Any:
        seen.append(tuple(argv))
        return run(argv, **options)

    monkeypatch.setattr(_git._commands, "run", counted)
    return seen


def of_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None
