# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of a worktree alone, run by git itself."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration.repos import Sample, commit, git, refused, succeeded, worktrees

from ansible_collections.parallel.worktrees.plugins.module_utils import _hooks
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer

BUILD = {"name": "build", "command": "test ! -e broken", "stages": ["commit"]}
TESTS = {"name": "tests", "command": "echo tested >>$LOG", "stages": ["commit"]}


def hooks(sample, *names, check=False, task="fix", **more):
    given = [
        {"name": name, "path": str(sample.tree(name, task)), "submodules": ["migrations"] * (name == "backend")}
        for name in names
    ]
    variables = {"LOG": str(sample.root / "log")}
    checked = ArgumentSpecValidator(_hooks.ARGUMENT_SPEC).validate(
        {"worktrees": given, "task": task, "variables": variables, **more}
    )
    assert not checked.error_messages, checked.error_messages
    return answer(_hooks.operation, checked.validated_parameters, check=check, diff=True)


def attempt(tree: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", tree, *arguments], check=False, capture_output=True, text=True)


def change(tree: pathlib.Path, name: str = "work") -> subprocess.CompletedProcess[str]:
    """A commit as somebody would make it, with hooks."""
    (tree / name).write_text(f"{os.urandom(4).hex()}\n")
    git(tree, "add", "--", name)
    return attempt(tree, "commit", "--quiet", "--message", "work")


def log(sample: Sample) -> list[str]:
    path = sample.root / "log"
    return path.read_text().splitlines() if path.exists() else []


def own_hook(folder: pathlib.Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def docs(sample: Sample) -> pathlib.Path:
    """The worktree of a task, with hooks, beside that of another task without."""
    sample.make("docs")
    sample.make("docs", task="other")
    succeeded(hooks(sample, "docs", checks=[BUILD, TESTS]))
    return sample.tree("docs")


def test_a_check_that_fails_stops_the_commit(sample, docs):
    head = git(docs, "rev-parse", "HEAD")
    (docs / "broken").write_text("")
    done = change(docs)
    assert done.returncode != 0
    assert "build failed: 'test ! -e broken' ended with 1" in done.stderr
    assert "tests skipped" in done.stderr
    assert "no commit, as build failed" in done.stderr
    assert git(docs, "rev-parse", "HEAD") == head
    assert log(sample) == []
    (docs / "broken").unlink()
    assert change(docs).returncode == 0
    assert log(sample) == ["tested"]


@pytest.mark.usefixtures("docs")
def test_no_other_worktree_sees_them(sample):
    (sample.tree("docs", "other") / "broken").write_text("")
    (sample.docs / "broken").write_text("")
    for tree in (sample.tree("docs", "other"), sample.docs):
        assert change(tree).returncode == 0
        assert attempt(tree, "config", "core.hooksPath").stdout == ""
        assert attempt(tree, "push", "--quiet", "origin", "HEAD:refs/heads/main", "--force").returncode == 0
    assert log(sample) == []


def test_a_check_may_warn_only(sample, docs):
    succeeded(hooks(sample, "docs", checks=[{**BUILD, "warns": ["commit"]}, TESTS]))
    (docs / "broken").write_text("")
    done = change(docs)
    assert done.returncode == 0
    assert "build warned" in done.stderr
    assert log(sample) == ["tested"]


def test_a_merge_is_a_commit_as_well(sample, docs):
    commit(sample.tree("docs", "other"), "theirs")
    change(docs)
    (docs / "broken").write_text("")
    done = attempt(docs, "merge", "--no-ff", "--message", "merge", "other")
    assert done.returncode != 0
    assert "build failed" in done.stderr


def test_commands_do_not_find_the_repository_of_the_hook(sample, docs):
    """A test that makes a repository of its own must not commit into this one."""
    stray = "git init --quiet $LOG.repo && cd $LOG.repo && git commit --quiet --allow-empty --message stray"
    succeeded(hooks(sample, "docs", checks=[{"name": "stray", "command": stray, "stages": ["commit"]}]))
    before = git(docs, "rev-list", "--count", "HEAD")
    assert change(docs).returncode == 0
    assert int(git(docs, "rev-list", "--count", "HEAD")) == int(before) + 1
    assert git(sample.root / "log.repo", "log", "--format=%s") == "stray"


# Pushes


def test_pushes_to_protected_branches_are_refused(sample, docs):
    succeeded(hooks(sample, "docs", protected=["main", "release/*"]))
    change(docs)
    main = git(sample.remotes / "docs.git", "rev-parse", "main")
    for target in ("HEAD:main", "HEAD:refs/heads/release/1.0", "+HEAD:main", ":main", "HEAD@{0 days ago}:main"):
        done = attempt(docs, "push", "origin", target)
        assert done.returncode != 0, target
        assert "is protected: task fix does not push to it" in done.stderr
        assert "parallel.worktrees.integrate" in done.stderr
    assert git(sample.remotes / "docs.git", "for-each-ref", "--format=%(refname) %(objectname)") == (
        f"refs/heads/main {main}"
    )
    assert attempt(docs, "push", "--quiet", "origin", "HEAD:refs/heads/fix").returncode == 0
    git(sample.remotes / "docs.git", "rev-parse", "fix")


def test_a_submodule_is_protected_too(sample):
    sample.make("backend")
    succeeded(hooks(sample, "backend"))
    inner = sample.tree("backend") / "migrations"
    assert git(inner, "status", "--porcelain") == ""
    commit(inner)
    done = attempt(inner, "push", "origin", "HEAD:main")
    assert "branch main is protected" in done.stderr
    # The submodule of the main tree works as before.
    main = sample.backend / "migrations"
    assert git(main, "rev-parse", "--show-toplevel") == str(main.resolve())
    assert git(inner, "rev-parse", "--show-toplevel") == str(inner.resolve())
    common = git(main, "rev-parse", "--path-format=absolute", "--git-common-dir")
    assert git(pathlib.Path(common), "rev-parse", "--show-toplevel") == str(main.resolve())


# The project's own hooks


def write_in_log(sample: Sample, word: str) -> str:
    return f'echo "{word} ${{0##*/}} $# $(cat | wc -l)" >>{sample.root}/log'


def test_hooks_of_the_project_still_run(sample, docs):
    own = sample.docs / ".git" / "hooks"
    for name in ("pre-commit", "commit-msg", "post-commit", "pre-push"):
        own_hook(own, name, write_in_log(sample, "own"))
    assert change(docs).returncode == 0
    assert attempt(docs, "push", "--quiet", "origin", "HEAD:refs/heads/fix").returncode == 0
    assert log(sample) == [
        "tested",
        "own pre-commit 0 0",
        "own commit-msg 1 0",
        "own post-commit 0 0",
        "own pre-push 2 1",
    ]
    own_hook(own, "pre-commit", "echo no >&2; exit 7")
    assert change(docs).returncode != 0


@pytest.mark.parametrize("place", [".husky/_", "{root}/hooks"])
def test_hooks_of_the_project_elsewhere(sample, docs, place):
    """Of the worktree where the path is relative, as husky has it; and set only after ours were."""
    where = place.format(root=sample.root)
    git(sample.docs, "config", "core.hooksPath", where)
    own_hook(docs / where, "pre-commit", '. "$(dirname "$0")/h"')
    own_hook(docs / where, "h", write_in_log(sample, "husky"))
    assert change(docs).returncode == 0
    assert log(sample) == ["tested", "husky pre-commit 0 0"]


def test_a_worktree_gets_back_the_hooks_that_it_had(sample):
    sample.make("docs")
    tree, common = sample.tree("docs"), sample.docs
    git(common, "config", "extensions.worktreeConfig", "true")
    git(tree, "config", "--worktree", "core.hooksPath", str(sample.root / "mine"))
    own_hook(sample.root / "mine", "pre-commit", write_in_log(sample, "mine"))
    for _number in range(2):
        succeeded(hooks(sample, "docs", checks=[TESTS]))
    assert change(tree).returncode == 0
    assert log(sample) == ["tested", "mine pre-commit 0 0"]
    succeeded(hooks(sample, "docs", state="absent"))
    assert git(tree, "config", "--worktree", "core.hooksPath") == str(sample.root / "mine")


@pytest.mark.parametrize("former", [None, "mine"])
def test_what_an_earlier_version_set_in_the_place_of_it_is_restored(sample, docs, former):
    admin = sample.docs / ".git" / "worktrees" / "fix"
    folder, settings = admin / "parallel-worktrees-hooks", admin / "parallel-worktrees-hooks" / "settings.json"
    own_hook(sample.root / "mine", "pre-commit", write_in_log(sample, "mine"))
    former = former and str(sample.root / former)
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "former": former}))
    for again in (True, False):
        for name in ("config.worktree", "parallel-worktrees.config"):
            (admin / name).unlink()
        git(docs, "config", "--worktree", "core.hooksPath", str(folder))
        if again:
            assert succeeded(hooks(sample, "docs", check=True, checks=[TESTS]))["changed"]
            succeeded(hooks(sample, "docs", checks=[TESTS]))
            assert change(docs).returncode == 0
            assert log(sample) == ["tested", *(["mine pre-commit 0 0"] if former else [])]
    succeeded(hooks(sample, "docs", state="absent"))
    assert git(docs, "config", "--default", "None", "core.hooksPath") == str(former)
    assert (admin / "config.worktree").exists() == bool(former)


@pytest.fixture
def husky(sample: Sample) -> pathlib.Path:
    """Hooks as husky has them: a folder that is generated and ignored, whose scripts run what is tracked beside it."""
    own_hook(sample.docs / ".husky", "pre-commit", f"echo of the branch $PWD >>{sample.root}/log")
    git(sample.docs, "add", "--all")
    git(sample.docs, "commit", "--quiet", "--message", "husky")
    generated = sample.docs / ".husky" / "_"
    own_hook(generated, "pre-commit", 'exec sh -e "$(dirname "$(dirname "$0")")/pre-commit" "$@"')
    (generated / ".gitignore").write_text("*\n")
    git(sample.docs, "config", "core.hooksPath", ".husky/_")
    sample.make("docs")
    return generated


def test_generated_hooks_of_the_project_run(sample, husky):
    tree = sample.tree("docs")
    own_hook(tree / ".husky", "pre-commit", f"echo edited $PWD >>{sample.root}/log")
    planned = succeeded(hooks(sample, "docs", check=True, checks=[TESTS]))
    assert not (tree / ".husky" / "_").exists()
    assert succeeded(hooks(sample, "docs", checks=[TESTS])) == planned
    assert not succeeded(hooks(sample, "docs", checks=[TESTS]))["changed"]
    git(tree, "add", "--all")
    assert attempt(tree, "commit", "--quiet", "--message", "edited").returncode == 0
    assert log(sample) == ["tested", f"edited {tree}"]
    assert git(tree, "show", "--format=", "--name-only") == ".husky/pre-commit"
    # An installation generates them anew, which is no work either.
    (tree / ".husky" / "_" / "pre-commit").write_text("#!/bin/sh\n")
    (tree / ".husky" / "_" / "more").write_text("#!/bin/sh\n")
    assert sample.remove("docs")["saved"] == []
    assert (husky / "pre-commit").exists()


def test_hooks_of_the_project_that_are_nowhere_are_told(sample, husky):
    shutil.rmtree(husky)
    result = succeeded(hooks(sample, "docs", checks=[TESTS]))
    assert [".husky/_" in one for one in result["warnings"]] == [True]
    done = change(sample.tree("docs"))
    assert (done.returncode, log(sample)) == (0, ["tested"])
    assert "core.hooksPath is .husky/_, which is not there: no hook of the project runs" in done.stderr
    own_hook(sample.tree("docs") / ".husky" / "_", "pre-commit", write_in_log(sample, "generated"))
    assert "warnings" not in succeeded(hooks(sample, "docs", checks=[TESTS]))
    assert "not there" not in change(sample.tree("docs")).stderr
    assert log(sample)[-1].startswith("generated")


def test_hooks_that_run_often_are_passed_on_where_there_are_any(sample):
    own_hook(sample.docs / ".git" / "hooks", "reference-transaction", f"echo $1 >>{sample.root}/log")
    sample.make("docs")
    succeeded(hooks(sample, "docs"))
    assert change(sample.tree("docs")).returncode == 0
    assert "committed" in log(sample)


# Life


def test_the_same_again_changes_nothing(sample, docs):
    assert not succeeded(hooks(sample, "docs", checks=[BUILD, TESTS]))["changed"]
    assert succeeded(hooks(sample, "docs", check=True, checks=[BUILD]))["changed"]
    assert not succeeded(hooks(sample, "docs", checks=[BUILD, TESTS]))["changed"]
    assert succeeded(hooks(sample, "docs", checks=[BUILD]))["changed"]
    folder = next((sample.docs / ".git").glob("worktrees/fix/parallel-worktrees-hooks"))
    (folder / "pre-commit").unlink()
    assert succeeded(hooks(sample, "docs", checks=[BUILD]))["changed"]
    assert succeeded(hooks(sample, "docs", state="absent", check=True))["changed"]
    assert folder.exists()
    assert succeeded(hooks(sample, "docs", state="absent"))["changed"]
    assert not succeeded(hooks(sample, "docs", state="absent"))["changed"]
    assert not folder.exists()
    (docs / "broken").write_text("")
    assert change(docs).returncode == 0


def test_what_a_killed_run_leaves_is_mended(sample, docs):
    folder = next((sample.docs / ".git").glob("worktrees/fix/parallel-worktrees-hooks"))
    (folder.parent / "config.worktree").unlink()  # files there, not yet in use
    succeeded(hooks(sample, "docs", checks=[BUILD, TESTS]))
    (docs / "broken").write_text("")
    assert change(docs).returncode != 0
    (folder / "settings.json").write_text("{")
    assert change(docs).returncode != 0, "who cannot tell does not let pass"
    succeeded(hooks(sample, "docs", checks=[BUILD, TESTS]))
    shutil.rmtree(folder)
    succeeded(hooks(sample, "docs", state="absent"))
    succeeded(hooks(sample, "docs", checks=[BUILD, TESTS]))
    assert change(docs).returncode != 0


@pytest.mark.usefixtures("docs")
def test_they_go_with_the_worktree(sample):
    sample.remove("docs")
    sample.remove("docs", task="other")
    assert sample.traces() == []


def test_an_adopted_worktree_is_left_without_them(sample):
    tree = sample.root / "theirs"
    git(sample.docs, "worktree", "add", "--quiet", "-b", "theirs", str(tree))
    member = sample.member("docs", path=str(tree), branch="theirs", adopt=True)
    sample.make(worktrees=[member])
    given = {"worktrees": [{"name": "docs", "path": str(tree)}], "checks": [BUILD], "variables": {}}
    succeeded(hooks(sample, **given))
    (tree / "broken").write_text("")
    assert change(tree).returncode != 0
    sample.remove(worktrees=[member])
    assert change(tree).returncode == 0
    assert sample.traces() == [str(sample.docs / ".git" / "worktrees")]


def test_what_has_no_worktree_of_its_own_is_refused(sample):
    refused(hooks(sample, worktrees=[{"name": "docs", "path": str(sample.docs)}]), "environment", "no linked worktree")
    twice = [BUILD, {**BUILD, "command": "true"}]
    refused(hooks(sample, "docs", checks=twice), "user", "build more than once")
    wide = [{"name": "leaked", "databases": "%_"}]
    refused(hooks(sample, "docs", checks=wide), "user", "means nearly all")


def test_many_at_once(sample):
    tasks = [f"t{number}" for number in range(8)]
    for task in tasks:
        sample.make("docs", task=task)
    script = (
        "import json, sys; from ansible_collections.parallel.worktrees.plugins.module_utils import _hooks, _door;"
        "print(json.dumps(_door.answer(_hooks.operation, json.loads(sys.argv[1]), check=False, diff=True)))"
    )
    processes = []
    for task in tasks:
        given = {"worktrees": [{"name": "docs", "path": str(sample.tree("docs", task))}], "task": task}
        params = ArgumentSpecValidator(_hooks.ARGUMENT_SPEC).validate(given).validated_parameters
        command = [sys.executable, "-c", script, json.dumps(params)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    for process in processes:
        succeeded(json.loads(process.communicate()[0]))
    for task, tree in zip(tasks, sorted(worktrees(sample.docs)), strict=True):
        assert f"/worktrees/{task}/" in git(tree, "config", "core.hooksPath")
