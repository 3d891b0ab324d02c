# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Integration of tasks on real repositories with real remotes, killed as well."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration.repos import commit, git, refused, succeeded, worktrees
from integration.test_hooks import hooks, own_hook

from ansible_collections.parallel.worktrees.plugins.module_utils import _integration, _prune
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer, filled

GREEN = {"name": "tests", "command": "test ! -e broken", "stages": ["integration"]}
SCRIPT = """
import json, sys
from ansible_collections.parallel.worktrees.plugins.module_utils import _door, _integration
print(json.dumps(_door.answer(_integration.operation, json.loads(sys.argv[1]), check=False, diff=True)))
"""


def params(sample, task, *names, **more):
    given = {
        "workspace": "shop",
        "task": task,
        "worktrees": [
            {
                "name": name,
                "path": str(sample.tree(name, task)),
                "submodules": ["migrations"] if name == "backend" else [],
            }
            for name in names
        ],
        "target": "main",
        "directory": str(sample.root / "integration"),
        "checks": [dict(GREEN)],
        **more,
    }
    checked = ArgumentSpecValidator(_integration.ARGUMENT_SPEC).validate(given)
    assert not checked.error_messages, checked.error_messages
    return checked.validated_parameters


def integrate(sample, task, *names, check=False, **more):
    given = params(sample, task, *(names or ("docs",)), **more)
    return answer(_integration.operation, given, check=check, diff=True)


def finished(sample, task, *names, file=None, text=None):
    """A task with a commit in each repository."""
    sample.make(*(names or ("docs",)), task=task)
    for name in names or ("docs",):
        commit(sample.tree(name, task), file or task, text or f"{task}\n")


def tips(sample, *names):
    """Every branch that integration has to do with, here and at the remote."""
    found = {}
    for name in names or ("docs",):
        for where in (sample / name, sample.remotes / f"{name}.git"):
            for line in git(
                where, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads"
            ).splitlines():
                branch, _space, tip = line.partition(" ")
                found[f"{where.name} {branch}"] = tip
    return found


def notes(sample):
    return list((sample.root / "integration").glob("*.json"))


def away(sample, name="docs"):
    """Leave main to nobody."""
    git(sample / name, "switch", "--quiet", "--detach")


def test_a_task_goes_to_integration_and_on_to_main(sample):
    finished(sample, "fix")
    tip = git(sample.tree("docs"), "rev-parse", "HEAD")
    before = git(sample.docs, "rev-parse", "main")
    result = succeeded(integrate(sample, "fix"))
    merged = git(sample.docs, "rev-parse", "integration")
    assert git(sample.docs, "show", "--no-patch", "--format=%P", merged) == f"{before} {tip}", "--no-ff"
    assert git(sample.docs, "show", "--no-patch", "--format=%B", merged) == (
        "Merge branch 'fix' into integration\n\nTask: fix\n"
    )
    assert tips(sample) == {
        "docs fix": tip,
        "docs integration": merged,
        "docs main": merged,
        "docs.git fix": tip,
        "docs.git integration": merged,
        "docs.git main": merged,
    }
    # The main tree, which has main checked out and was clean, has followed.
    assert (sample.docs / "fix").read_text() == "fix\n"
    assert git(sample.docs, "status", "--porcelain") == ""
    assert result["integrated"] == [{"name": "docs", "branch": "fix", "commit": merged}]
    assert result["notes"] == []
    assert notes(sample) == []
    again = succeeded(integrate(sample, "fix"))
    assert not again["changed"]
    assert again["summary"] == "fix: is in integration already\n"
    # In a worktree of its own, at no branch.
    assert worktrees(sample.docs)[next(path for path in worktrees(sample.docs) if "integration" in path)] is None


def test_an_integration_without_any_check_draws_a_warning(sample):
    finished(sample, "fix")
    away(sample)
    assert "without any check" in integrate(sample, "fix", checks=[])["warnings"][0]
    assert not integrate(sample, "fix", checks=[]).get("warnings")  # nothing moves


def test_each_is_merged_on_the_one_before(sample):
    for task in ("one", "two", "three"):
        finished(sample, task)
    for task in ("two", "one", "three"):
        succeeded(integrate(sample, task))
    subjects = git(sample.docs, "log", "--first-parent", "--format=%s", "-3", "main").splitlines()
    assert subjects == [f"Merge branch '{task}' into integration" for task in ("three", "one", "two")]


def test_a_conflict_leaves_everything_as_it_was(sample):
    finished(sample, "one", file="README", text="one\n")
    finished(sample, "two", file="README", text="two\n")
    succeeded(integrate(sample, "one"))
    before = tips(sample)
    result = integrate(sample, "two")
    refused(result, "user", "task two (two) conflicts with integration in README", "every branch is as it was")
    assert result["files"] == {"docs": ["README"]}
    assert tips(sample) == before
    refused(integrate(sample, "two", check=True), "user", "conflicts with integration in README")
    # As the hint has it.
    command = result["hint"].partition(": ")[2].split()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    commit(sample.tree("docs", "two"), "README", "both\n")
    succeeded(integrate(sample, "two"))
    assert git(sample.docs, "show", "main:README") == "both"


def test_a_red_gate_leaves_everything_as_it_was(sample):
    finished(sample, "fix", file="broken")
    before = tips(sample)
    result = integrate(sample, "fix")
    refused(result, "user", "task fix was not integrated", "docs: tests failed", "every branch is as it was")
    assert [one["verdict"] for one in result["checks"]] == ["failed"]
    assert tips(sample) == before
    assert notes(sample) == []


def test_green_alone_is_not_green_together(sample):
    together = {"name": "tests", "command": "test ! -e one || test ! -e two", "stages": ["integration"]}
    finished(sample, "one")
    finished(sample, "two")
    succeeded(integrate(sample, "one", checks=[together]))
    before = tips(sample)
    refused(integrate(sample, "two", checks=[together]), "user", "task two was not integrated")
    assert tips(sample) == before


def test_several_repositories_all_or_none(sample):
    finished(sample, "one", "docs", "app")
    commit(sample.tree("app", "one"), "README", "one\n")
    commit(sample.app, "README", "theirs\n")
    git(sample.app, "push", "--quiet", "origin", "main")
    before = tips(sample, "docs", "app")
    refused(integrate(sample, "one", "docs", "app"), "user", "repository app: task one (one) conflicts", "README")
    assert tips(sample, "docs", "app") == before
    git(sample.tree("app", "one"), "reset", "--quiet", "--hard", "HEAD~1")
    succeeded(integrate(sample, "one", "docs", "app"))
    for name in ("docs", "app"):
        found = tips(sample, name)
        assert (
            len({found[f"{where} {branch}"] for where in (name, f"{name}.git") for branch in ("main", "integration")})
            == 1
        )


def test_a_push_that_is_refused_takes_back_the_others(sample):
    finished(sample, "one", "docs", "app")
    before = tips(sample, "docs", "app")
    own_hook(sample.remotes / "docs.git" / "hooks", "pre-receive", "echo the forge says no >&2; exit 1")
    text = refused(
        integrate(sample, "one", "app", "docs"), "environment", "the forge says no", "every branch is as it was"
    )
    assert "integration_target: null" in text
    after = tips(sample, "docs", "app")
    assert after.pop("app.git one") == git(sample.tree("app", "one"), "rev-parse", "HEAD"), "its own branch may stay"
    assert after == before
    assert notes(sample) == []
    (sample.remotes / "docs.git" / "hooks" / "pre-receive").unlink()
    succeeded(integrate(sample, "one", "app", "docs"))


def test_what_cannot_be_taken_back_is_told(sample):
    finished(sample, "one", "docs", "app")
    own_hook(sample.remotes / "docs.git" / "hooks", "pre-receive", "exit 1")
    git(sample.remotes / "app.git", "config", "receive.denyNonFastForwards", "true")
    git(sample.remotes / "app.git", "config", "receive.denyDeletes", "true")
    refused(integrate(sample, "one", "app", "docs"), "partial", "in part only", "app: integration and main of origin")


def test_main_that_moved_on_is_merged_first(sample):
    finished(sample, "one")
    succeeded(integrate(sample, "one"))
    finished(sample, "two")
    there = sample.root / "clone"
    git(sample.root, "clone", "--quiet", str(sample.remotes / "docs.git"), str(there))
    theirs = commit(there, "hotfix")
    git(there, "push", "--quiet", "origin", "main")
    succeeded(integrate(sample, "two"))
    merged = git(sample.docs, "rev-parse", "main")
    assert git(sample.docs, "merge-base", theirs, merged) == theirs
    # Integration went on by itself, too.
    git(there, "fetch", "--quiet")
    git(there, "switch", "--quiet", "integration")
    commit(there, "more")
    git(there, "push", "--quiet", "origin", "integration")
    git(there, "switch", "--quiet", "main")
    git(there, "pull", "--quiet")
    commit(there, "hotfix2")
    git(there, "push", "--quiet", "origin", "main")
    finished(sample, "three")
    succeeded(integrate(sample, "three"))
    assert "Merge branch 'main' into integration" in git(sample.docs, "log", "--format=%s", "main")
    assert {"more", "hotfix2", "three"} <= set(git(sample.docs, "ls-tree", "--name-only", "main").split())


def test_branches_that_went_different_ways_are_refused(sample):
    finished(sample, "one")
    there = sample.root / "clone"
    git(sample.root, "clone", "--quiet", str(sample.remotes / "docs.git"), str(there))
    commit(there, "theirs")
    git(there, "push", "--quiet", "origin", "main")
    commit(sample.docs, "ours")
    before = tips(sample)
    refused(integrate(sample, "one"), "user", "main here and at origin have gone different ways")
    assert tips(sample) == before


def test_a_main_tree_with_work_stays_and_that_is_told(sample):
    finished(sample, "one")
    (sample.docs / "mine").write_text("mine\n")
    before = git(sample.docs, "rev-parse", "main")
    result = succeeded(integrate(sample, "one"))
    assert git(sample.docs, "rev-parse", "main") == before
    assert git(sample.remotes / "docs.git", "rev-parse", "main") == git(sample.docs, "rev-parse", "integration")
    assert "main stays behind" in result["summary"]
    assert "not committed: mine" in result["summary"]
    command = result["notes"][0].rpartition("then: ")[2].split()
    assert not succeeded(integrate(sample, "one"))["changed"]
    subprocess.run(command, check=True)
    assert (sample.docs / "mine").read_text() == "mine\n"
    assert git(sample.docs, "rev-parse", "main") == git(sample.docs, "rev-parse", "integration")


def test_main_that_nobody_has_checked_out(sample):
    away(sample)
    finished(sample, "one")
    succeeded(integrate(sample, "one"))
    assert git(sample.docs, "rev-parse", "main") == git(sample.docs, "rev-parse", "integration")
    assert not (sample.docs / "one").exists()


def test_a_branch_that_has_nothing_new_is_pushed_all_the_same(sample):
    finished(sample, "one")
    succeeded(integrate(sample, "one"))
    sample.make("docs", task="idle")
    assert succeeded(integrate(sample, "idle"))["changed"]
    assert tips(sample)["docs.git idle"] == tips(sample)["docs idle"]
    assert not succeeded(integrate(sample, "idle"))["changed"]


def test_straight_to_main(sample):
    for task in ("one", "two"):
        finished(sample, task)
        succeeded(integrate(sample, task, branch="main"))
        assert not succeeded(integrate(sample, task, branch="main"))["changed"]
    subjects = git(sample.docs, "log", "--first-parent", "--format=%s", "-2", "main").splitlines()
    assert subjects == ["Merge branch 'two' into main", "Merge branch 'one' into main"]
    assert git(sample.remotes / "docs.git", "rev-parse", "main") == git(sample.docs, "rev-parse", "HEAD")
    assert (sample.docs / "two").exists()
    assert "integration" not in git(sample.docs, "branch", "--list")


def test_without_target_or_remote(sample):
    finished(sample, "one")
    before = git(sample.docs, "rev-parse", "main")
    refused(integrate(sample, "one", target=None), "user", "no branch integration")
    git(sample.docs, "branch", "integration")
    succeeded(integrate(sample, "one", target=None))
    assert git(sample.docs, "rev-parse", "main") == before
    assert git(sample.remotes / "docs.git", "rev-parse", "main") == before
    git(sample.docs, "remote", "remove", "origin")
    finished(sample, "two")
    succeeded(integrate(sample, "two"))
    assert git(sample.docs, "rev-parse", "main") == git(sample.docs, "rev-parse", "integration")


def test_what_is_not_finished_is_refused(sample):
    finished(sample, "one")
    tree = sample.tree("docs", "one")
    (tree / "more").write_text("")
    refused(integrate(sample, "one"), "user", "not committed: more")
    (tree / "more").unlink()
    git(tree, "switch", "--quiet", "--detach")
    refused(integrate(sample, "one"), "user", "detached HEAD")
    git(tree, "switch", "--quiet", "-c", "integration")
    refused(integrate(sample, "one"), "user", "is on integration itself")
    git(tree, "switch", "--quiet", "one")
    git(sample.docs, "worktree", "add", "--quiet", str(sample.root / "theirs"), "integration")
    refused(integrate(sample, "one"), "user", f"integration is checked out at {sample.root}/theirs")
    refused(integrate(sample, "gone"), "user", "no linked worktree any more")


def test_hooks_of_tasks_do_not_stop_it(sample):
    finished(sample, "one")
    never = {"name": "never", "command": "false", "stages": ["commit"]}
    succeeded(hooks(sample, "docs", task="one", checks=[never]))
    own_hook(sample.docs / ".git" / "hooks", "pre-push", f"echo pushed >{sample.root}/log")
    succeeded(integrate(sample, "one"))
    assert (sample.root / "log").read_text() == "pushed\n", "git-lfs would need its own"


def test_check_mode_touches_nothing(sample):
    finished(sample, "one")
    before = {str(path): path.stat().st_size for path in sample.root.rglob("*")}, tips(sample)
    result = succeeded(integrate(sample, "one", check=True))
    assert result["changed"]
    assert result["actions"] == [
        "merge one of docs into integration and main for one",
        "push one and integration and main of docs to origin",
    ]
    assert ({str(path): path.stat().st_size for path in sample.root.rglob("*")}, tips(sample)) == before


def test_prune_takes_its_worktree_back(sample):
    finished(sample, "one")
    succeeded(integrate(sample, "one", directory=None))
    sample.remove("docs", task="one")
    repos = [{"name": "docs", "repo": str(sample.docs)}]
    given = {"registry": str(sample.root / "registry"), "workspace": "shop", "repos": repos, "backend": "none"}
    for apply, left in ((False, 1), (True, 0)):
        result = answer(
            _prune.operation, filled(_prune.ARGUMENT_SPEC, {**given, "apply": apply}), check=False, diff=False
        )
        assert [one["kind"] for one in succeeded(result)["leftovers"]] == ["integration"]
        assert len(worktrees(sample.docs)) == left
    assert sample.traces() == []


# Submodules


def migrated(sample, task, file=None, text=None):
    """A task with a commit in the submodule, and one in the repository that names it."""
    sample.make("backend", task=task)
    tree = sample.tree("backend", task)
    tip = commit(tree / "migrations", file or f"{task}.sql", text or f"{task}\n")
    git(tree, "commit", "--quiet", "--all", "--message", f"{task} in migrations")
    return tip


def inner(sample):
    """Every branch of the submodule, here and at its remote."""
    return {
        f"{where} {line.split()[0]}": line.split()[1]
        for where, folder in (
            ("here", sample.backend / "migrations"),
            ("there", sample.remotes / "migrations.git"),
        )
        for line in git(folder, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads").splitlines()
    }


def link(sample, commit="integration"):
    return git(sample.backend, "rev-parse", f"{commit}:migrations")


def of_both(sample):
    return tips(sample, "backend"), inner(sample)


def test_a_submodule_is_merged_and_named(sample):
    tip = migrated(sample, "one")
    base = git(sample.backend / "migrations", "rev-parse", "main")
    for name in ("migrations", "backend"):
        own_hook(sample.remotes / f"{name}.git" / "hooks", "pre-receive", f"echo {name} >>{sample.root}/pushed")
    whole = {"name": "whole", "command": "test -e migrations/one.sql", "stages": ["integration"]}
    clean = {"name": "clean", "git": "clean", "stages": ["integration"]}
    result = succeeded(integrate(sample, "one", "backend", checks=[whole, clean]))
    merged = link(sample)
    found = inner(sample)
    assert git(sample.backend / "migrations", "show", "--no-patch", "--format=%P", merged) == f"{base} {tip}"
    assert git(sample.backend / "migrations", "show", "--no-patch", "--format=%s", merged) == (
        "Merge branch 'one' into integration"
    )
    assert found == {
        "here main": merged,
        "here integration": merged,
        "here one": tip,
        "there main": merged,
        "there integration": merged,
        "there one": tip,
    }
    around = tips(sample, "backend")
    assert (
        len({around[f"{where} {name}"] for where in ("backend", "backend.git") for name in ("main", "integration")})
        == 1
    )
    assert (sample.root / "pushed").read_text().split() == ["migrations", "backend"]
    assert [one["name"] for one in result["integrated"]] == ["backend/migrations", "backend"]
    # The main tree has followed with its submodule, and has nothing that is not committed.
    assert git(sample.backend, "status", "--porcelain") == ""
    assert (sample.backend / "migrations" / "one.sql").exists()
    before = of_both(sample)
    assert not succeeded(integrate(sample, "one", "backend"))["changed"]
    assert of_both(sample) == before


def test_two_tasks_that_moved_a_submodule(sample):
    """Which one commit of it would be right is no conflict: it is what was merged there."""
    mine = {task: migrated(sample, task) for task in ("one", "two")}
    assert succeeded(integrate(sample, "two", "backend", check=True))["changed"]
    for task in ("one", "two"):
        assert succeeded(integrate(sample, task, "backend", check=True))["actions"][0] == (
            f"merge {task} of backend/migrations into integration and main for {task}"
        )
        succeeded(integrate(sample, task, "backend"))
    for tip in mine.values():
        git(sample.backend / "migrations", "merge-base", "--is-ancestor", tip, link(sample, "main"))
    assert set(git(sample.backend / "migrations", "ls-tree", "--name-only", link(sample)).split()) >= {
        "one.sql",
        "two.sql",
    }
    assert inner(sample)["there main"] == link(sample)


def test_a_conflict_in_a_submodule(sample):
    migrated(sample, "one", "first.sql", "one\n")
    migrated(sample, "two", "first.sql", "two\n")
    finished(sample, "two", "docs")
    succeeded(integrate(sample, "one", "backend"))
    before = of_both(sample), tips(sample)
    told = "submodule backend/migrations: task two (two) conflicts with integration in first.sql"
    for check in (True, False):
        result = integrate(sample, "two", "docs", "backend", check=check)
        refused(result, "user", told, "every branch is as it was")
        assert result["files"] == {"backend/migrations": ["first.sql"]}
        assert (of_both(sample), tips(sample)) == before
    # As the hint has it.
    tree = sample.tree("backend", "two")
    subprocess.run(result["hint"].partition(": ")[2].split(), check=False, capture_output=True)
    commit(tree / "migrations", "first.sql", "both\n")
    git(tree, "commit", "--quiet", "--all", "--message", "both")
    succeeded(integrate(sample, "two", "docs", "backend"))
    assert git(sample.backend / "migrations", "show", f"{link(sample, 'main')}:first.sql") == "both"


def test_a_task_that_left_the_submodule_alone_changes_nothing_in_it(sample):
    finished(sample, "plain", "backend")
    before = inner(sample)
    there = {"name": "there", "command": "test -e migrations/README", "stages": ["integration"]}
    git(sample.tree("backend", "plain") / "migrations", "switch", "--quiet", "--detach")
    succeeded(integrate(sample, "plain", "backend", checks=[there]))
    assert inner(sample) == before
    migrated(sample, "one")
    finished(sample, "late", "backend", file="late")
    succeeded(integrate(sample, "one", "backend"))
    before, named = inner(sample), link(sample)
    new = {"name": "new", "command": "test -e migrations/one.sql", "stages": ["integration"]}
    succeeded(integrate(sample, "late", "backend", checks=[new]))
    assert (inner(sample), link(sample)) == (before, named)


def test_a_submodule_without_the_target(sample):
    """Often it is somebody else's; what integration names is then what it is merged on."""
    submodule = sample.backend / "migrations"
    base = link(sample, "main")
    git(submodule, "switch", "--quiet", "--detach")
    for where in (submodule, sample.remotes / "migrations.git"):
        git(where, "branch", "--move", "main", "trunk")
    tip = migrated(sample, "one")
    succeeded(integrate(sample, "one", "backend"))
    assert git(submodule, "show", "--no-patch", "--format=%P", link(sample, "main")) == f"{base} {tip}"
    assert inner(sample)["there trunk"] == base
    assert inner(sample)["there integration"] == link(sample)
    # The main tree had it where it was named.
    assert git(submodule, "rev-parse", "HEAD") == link(sample, "main")
    assert git(sample.backend, "status", "--porcelain") == ""


def test_commits_that_only_the_repository_names_are_kept(sample):
    """Somebody moved it to a commit that is on no branch of the submodule that integration knows."""
    mine = migrated(sample, "one")
    clone = sample.root / "clone"
    git(sample.root, "clone", "--quiet", str(sample.remotes / "backend.git"), str(clone))
    protocol = ("-c", "protocol.file.allow=always")
    git(clone, *protocol, "submodule", "--quiet", "update", "--init")
    theirs = commit(clone / "migrations", "theirs.sql")
    git(clone / "migrations", "push", "--quiet", "origin", "HEAD:refs/heads/side")
    git(clone, "commit", "--quiet", "--all", "--message", "theirs")
    git(clone, "push", "--quiet", "origin", "main")
    succeeded(integrate(sample, "one", "backend"))
    for tip in (mine, theirs):
        git(sample.backend / "migrations", "merge-base", "--is-ancestor", tip, link(sample, "main"))


def test_a_submodule_that_somebody_works_in_stays_and_that_is_told(sample):
    migrated(sample, "one")
    submodule = sample.backend / "migrations"
    git(submodule, "switch", "--quiet", "-c", "mine")
    result = succeeded(integrate(sample, "one", "backend"))
    assert git(submodule, "symbolic-ref", "--short", "HEAD") == "mine"
    assert f"backend: migrations stays behind at {submodule}" in result["notes"][0]
    # Around it, the tree of somebody who is on another branch is not to be made different.
    git(submodule, "switch", "--quiet", "main")
    migrated(sample, "two")
    git(sample.backend, "switch", "--quiet", "-c", "theirs")
    before = git(submodule, "rev-parse", "HEAD")
    result = succeeded(integrate(sample, "two", "backend"))
    assert git(submodule, "rev-parse", "HEAD") == before
    assert "main stays behind" in " ".join(result["notes"])
    assert not succeeded(integrate(sample, "two", "backend"))["changed"]


@pytest.mark.parametrize("refusing", ["migrations", "backend"])
def test_a_push_that_is_refused_takes_back_submodules_too(sample, refusing):
    migrated(sample, "one")
    before = of_both(sample)
    own_hook(sample.remotes / f"{refusing}.git" / "hooks", "pre-receive", "echo no >&2; exit 1")
    refused(integrate(sample, "one", "backend"), "environment", "every branch is as it was")
    after = of_both(sample)
    after[1].pop("there one", None)  # its own branch may stay
    assert after == before
    (sample.remotes / f"{refusing}.git" / "hooks" / "pre-receive").unlink()
    succeeded(integrate(sample, "one", "backend"))


def test_prune_takes_the_worktrees_of_submodules_back(sample):
    migrated(sample, "one")
    succeeded(integrate(sample, "one", "backend", directory=None))
    sample.remove("backend", task="one")
    repos = [{"name": "backend", "repo": str(sample.backend)}]
    given = {"registry": str(sample.root / "registry"), "workspace": "shop", "repos": repos, "backend": "none"}
    filled_in = filled(_prune.ARGUMENT_SPEC, {**given, "apply": True})
    succeeded(answer(_prune.operation, filled_in, check=False, diff=False))
    assert sample.traces() == []


# Killed


def started(sample, task, *names, **more):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(params(sample, task, *names, **more))],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(path: pathlib.Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def test_killed_in_the_gate(sample):
    finished(sample, "one")
    before = tips(sample)
    slow = {"name": "slow", "command": f"touch {sample.root}/there; sleep 300", "stages": ["integration"]}
    process = started(sample, "one", "docs", checks=[slow])
    wait_for(sample.root / "there")
    kill(process)
    assert tips(sample) == before
    succeeded(integrate(sample, "one"))
    assert git(sample.docs, "rev-parse", "main") == git(sample.docs, "rev-parse", "integration")


def interrupted(sample, monkeypatch, act, at, *names):
    """Integrate task one, as far as before the first or the second of these acts, or as after the second."""
    calls: list[object] = []
    really = getattr(_integration, act)

    def until(member):
        if len(calls) == at:
            raise KeyboardInterrupt
        calls.append(member)
        really(member)
        if len(calls) == at == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_integration, act, until)
        with pytest.raises(KeyboardInterrupt):
            integrate(sample, "one", *names)
    assert len(notes(sample)) == 1


@pytest.mark.parametrize("act", ["_push", "_move", "_follow"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_killed_while_publishing(sample, monkeypatch, act, at):
    """The next call finishes what was noted, whichever task it is for."""
    finished(sample, "one", "docs", "app")
    finished(sample, "two", "app")
    interrupted(sample, monkeypatch, act, at, "docs", "app")
    # What is noted is not asked again.
    red = {"name": "red", "command": "false", "stages": ["integration"]}
    refused(integrate(sample, "two", "app", checks=[red]), "user", "task two was not integrated")
    assert notes(sample) == []
    for name in ("docs", "app"):
        found = tips(sample, name)
        merged = {found[f"{where} {branch}"] for where in (name, f"{name}.git") for branch in ("main", "integration")}
        assert len(merged) == 1
        assert git(sample / name, "merge-base", "--is-ancestor", "one", merged.pop()) == ""
        assert git(sample / name, "status", "--porcelain") == ""
    succeeded(integrate(sample, "two", "app"))


@pytest.mark.parametrize("act", ["_push", "_move", "_follow"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_killed_while_publishing_a_submodule(sample, monkeypatch, act, at):
    migrated(sample, "one")
    git(sample.backend / "migrations", "switch", "--quiet", "--detach")
    interrupted(sample, monkeypatch, act, at, "backend")
    assert succeeded(integrate(sample, "one", "backend"))["actions"] == [
        "finish the integration of one, which was killed"
    ]
    assert notes(sample) == []
    around = tips(sample, "backend")
    assert (
        len({around[f"{where} {name}"] for where in ("backend", "backend.git") for name in ("main", "integration")})
        == 1
    )
    found = inner(sample)
    assert {found[f"{where} {name}"] for where in ("here", "there") for name in ("main", "integration")} == {
        link(sample)
    }
    assert git(sample.backend, "status", "--porcelain") == ""


def test_killed_at_random(sample):
    tasks = [f"t{number}" for number in range(6)]
    for task in tasks:
        finished(sample, task, "docs", "app")
        migrated(sample, task)
    for number, task in enumerate(tasks):
        process = started(sample, task, "docs", "app", "backend")
        time.sleep(0.15 + 0.12 * number)
        kill(process)
        for name in ("docs", "app", "backend", "backend/migrations"):
            fsck = ("git", "-C", sample / name, "fsck", "--connectivity-only")
            said = subprocess.run(fsck, capture_output=True, text=True, check=False).stderr.splitlines()
            # Of a worktree that git was about to make, which the next run makes anew.
            assert [line for line in said if "detached HEAD points at nothing" not in line] == []
    for task in tasks:
        succeeded(integrate(sample, task, "docs", "app", "backend"))
    assert notes(sample) == []
    found = inner(sample)
    for task in tasks:
        git(sample.backend / "migrations", "merge-base", "--is-ancestor", found[f"here {task}"], link(sample, "main"))
    assert len({found[f"{where} {name}"] for where in ("here", "there") for name in ("main", "integration")}) == 1
    for name in ("docs", "app", "backend"):
        found = tips(sample, name)
        assert (
            len({found[f"{where} {branch}"] for where in (name, f"{name}.git") for branch in ("main", "integration")})
            == 1
        )
        merges = git(sample / name, "log", "--first-parent", "--merges", "--format=%s", "main").splitlines()
        assert sorted(merges) == [f"Merge branch '{task}' into integration" for task in tasks]


def test_one_at_a_time(sample):
    """Each waits for the one before, so that none is tried on what another is about to change."""
    tasks = [f"t{number}" for number in range(5)]
    for task in tasks:
        finished(sample, task)
    alone = f"mkdir {sample.root}/alone && sleep 0.2 && rmdir {sample.root}/alone"
    checks = [{"name": "alone", "command": alone, "stages": ["integration"]}]
    for process in [started(sample, task, "docs", checks=checks) for task in tasks]:
        succeeded(json.loads(process.communicate()[0]))
    assert set(tasks) <= set(git(sample.docs, "ls-tree", "--name-only", "main").split())
