# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that are killed, and many at once: the next run makes or removes all of it.

PARALLEL_WORKTREES_KILLS sets how many times each random kill is done.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import typing as t

import pytest
from integration.repos import NAMES, branches, call, git, refused, saved, status, succeeded, worktrees

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _agents,
    _aside,
    _branch_marks,
    _env_files,
    _worktrees,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._git import MAKING

KILLS = int(os.environ.get("PARALLEL_WORKTREES_KILLS", "5"))
STRIDE = max(1, 30 // KILLS)


def assert_made(sample, names=NAMES):
    """Complete the set, and see with git that it is."""
    sample.make(*names)
    for name in names:
        assert worktrees(sample / name) == {str(sample.tree(name)): "fix"}
        assert status(sample.tree(name)) == ""
        assert status(sample / name) == ""
        assert "locked" not in git(sample / name, "worktree", "list", "--porcelain")
    if "backend" in names:
        assert git(sample.tree("backend") / "migrations", "branch", "--show-current") == "fix"
        assert status(sample.tree("backend") / "migrations") == ""


def assert_removed(sample, names=NAMES, **more):
    """Remove the set, and see that no trace is left."""
    sample.remove(*names, delete_branch=True, **more)
    assert [worktrees(sample / name) for name in names] == [{}] * len(names)
    assert [branches(sample / name) for name in names] == [["main"]] * len(names)
    assert sample.traces(work_was_saved=bool(more)) == []


# Kills


def child(act: t.Callable[[], object], before: t.Callable[[], object] = lambda: None) -> int:
    """A process group of its own that does something in this very interpreter; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgrp()
            before()
            act()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - it must never get back into the test
            sys.stderr.write(f"{error!r}\n")
            os._exit(9)
    os.setpgid(pid, pid)  # on both sides, so that neither kills before there is a group
    return pid


def end_of(pid: int) -> int:
    """How a child ended; what is left of its group is ended too."""
    _pid, code = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return code


def killed_before_step(number: int, act: t.Callable[[], object]) -> bool:
    """Whether a run got as far as its step of this number, and was killed there with all of its processes.

    A step is whatever changes something: a file written or moved, a folder made or removed, a program started.
    """
    steps = itertools.count(1)

    def watch(event: str, arguments: tuple[t.Any, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "subprocess.Popen")
        if (writes or changes) and arguments[0] != os.devnull and next(steps) == number:
            os.killpg(0, signal.SIGKILL)

    code = end_of(child(act, lambda: sys.addaudithook(watch)))
    assert code in (0, signal.SIGKILL)
    return code != 0


def some_steps():
    """The numbers of all steps where there are to be thirty kills, else of a part of them."""
    return itertools.count(random.randint(1, STRIDE), STRIDE)


def test_a_making_killed_before_any_of_its_steps(sample):
    params = sample.params("backend")
    for number in some_steps():
        if not killed_before_step(number, lambda: _worktrees.operation(params, check=False)):
            break
        if random.random() < 0.5:
            assert_made(sample, ["backend"])
        assert_removed(sample, ["backend"])
    assert number > 20


def test_a_removal_killed_before_any_of_its_steps(sample):
    params = sample.params("backend", state="absent", delete_branch=True, force=True)
    inner = sample.tree("backend") / "migrations"
    for number in some_steps():
        sample.make("backend")
        (inner / "mine").write_text(f"{number}\n")
        if not killed_before_step(number, lambda: _worktrees.operation(params, check=False)):
            break
        if random.random() < 0.5 and not os.path.exists(_aside.folder_of(str(inner.parent))):
            assert_made(sample, ["backend"])
        assert_removed(sample, ["backend"], force=True)
        kept = [
            git(sample.backend / "migrations", "show", f"{ref}^3:mine") for ref in saved(sample.backend / "migrations")
        ]
        assert str(number) in kept
    assert number > 20


def test_an_adoption_killed_before_any_of_its_steps(sample, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.file.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    sample.forget_submodule()
    params = sample.params("backend")
    for number in some_steps():
        if not killed_before_step(number, lambda: _worktrees.operation(params, check=False)):
            break
        assert_made(sample, ["backend"])
        assert_removed(sample, ["backend"])
        sample.forget_submodule()
    assert number > 20


def test_writing_what_git_is_not_to_see_killed_before_any_of_its_steps(sample, tmp_path, monkeypatch):
    """Neither is that ever seen, nor what the user has ignored everywhere."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "ignore").write_text("*.swp\n")
    inner = sample.tree("backend") / "migrations"
    config = sample.backend / ".git" / "modules" / "migrations" / "config"
    before = config.read_text()
    (sample.backend / "task.env").write_text("A=1\n")
    given = [{"name": "backend", "path": str(sample.tree("backend")), "source": str(sample.backend)}]
    files = [{"repo": "backend", "path": "migrations/task.env", "source": "task.env", "values": {"A": "2"}}]
    text = [{"path": "migrations/AGENTS.md"}]

    def write():
        succeeded(call(_env_files, worktrees=given, files=files))
        succeeded(call(_agents, worktrees=[{"name": "any", "path": str(given[0]["path"])}], files=text, text="Rule.\n"))

    for number in some_steps():
        sample.make("backend")
        (inner / "file.swp").write_text("")
        was_killed = killed_before_step(number, write)
        assert status(inner) == ""
        assert git(sample.backend / "migrations", "status", "--porcelain") == ""
        if random.random() < 0.5 or not was_killed:
            sample.make("backend")
            write()
            assert status(inner) == ""
            assert (inner / "AGENTS.md").exists()
        (inner / "file.swp").unlink()
        assert_removed(sample, ["backend"])
        if not was_killed:
            break
        config.write_text(before)  # as it is before a worktree has settings of its own
        (config.parent / "config.worktree").unlink(missing_ok=True)
    assert number > 15


def test_leaving_a_worktree_of_another_tool_killed_before_any_of_its_steps(sample, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "ignore").write_text("*.swp\n")
    tree = sample.root / "theirs"
    git(sample.docs, "worktree", "add", "--quiet", "-b", "theirs", str(tree))
    (tree / "file.swp").write_text("")
    before = sorted(os.listdir(admin_of(tree)))
    member = sample.member("docs", path=str(tree), branch="theirs", adopt=True)
    params = sample.params(worktrees=[member], state="absent")
    for number in some_steps():
        sample.make(worktrees=[member])
        succeeded(call(_agents, worktrees=[{"name": "docs", "path": str(tree)}], files=[{"path": "AGENTS.md"}]))
        was_killed = killed_before_step(number, lambda: _worktrees.operation(params, check=False))
        assert "file.swp" not in status(tree)
        sample.remove(worktrees=[member])
        assert sorted(os.listdir(admin_of(tree))) == before
        assert status(tree) == ""
        if not was_killed:
            break
    assert number > 8


@pytest.mark.parametrize("whole_group", [True, False], ids=["all", "python"])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_kills_at_random(sample, whole_group, state):
    """Of the whole process group, or of Python alone, so that its git lives on beside the next run."""
    params = sample.params(state=state, delete_branch=state == "absent")
    longest = 0.0
    for number in range(KILLS + 1):
        if state == "absent":
            sample.make()
        started = time.monotonic()
        pid = child(lambda: _worktrees.operation(params, check=False))
        if number:  # the first is not killed, and tells how long it takes
            time.sleep(random.uniform(0, longest))
            (os.killpg if whole_group else os.kill)(pid, signal.SIGKILL)
        _pid, code = os.waitpid(pid, 0)
        longest = longest or time.monotonic() - started
        assert code in (0, signal.SIGKILL)
        if number % 2:
            assert_made(sample)
        assert_removed(sample)
        assert whole_group or sample.traces() == []


# What kills leave, made by hand


def admin_of(tree):
    return pathlib.Path(git(tree, "rev-parse", "--absolute-git-dir"))


def half_made(sample):
    """A worktree as git has it before it is checked out."""
    tree = sample.tree("docs")
    git(sample.docs, "worktree", "add", "--quiet", "--no-checkout", "--detach", "--lock", "--reason", MAKING, str(tree))
    return tree, admin_of(tree)


def only_the_folder_of_git(tree, admin):
    shutil.rmtree(admin)
    admin.mkdir()
    (tree / ".git").unlink()


def only_the_lock(tree, admin):
    only_the_folder_of_git(tree, admin)
    (admin / "locked").write_text(MAKING)


def only_half_of_the_lock(tree, admin):
    only_the_folder_of_git(tree, admin)
    (admin / "locked").write_text(MAKING[:7])


def no_dot_git(tree, _admin):
    (tree / ".git").unlink()


def an_empty_dot_git(tree, admin):
    (tree / ".git").write_text("")
    (admin / "HEAD").unlink()
    (admin / "commondir").unlink()


def no_head(_tree, admin):
    (admin / "HEAD").unlink()
    (admin / "commondir").unlink()


def a_head_of_zeros(_tree, admin):
    (admin / "HEAD").write_text("0" * 40 + "\n")


def an_empty_commondir(_tree, admin):
    (admin / "commondir").write_text("")


def no_index(_tree, _admin):
    pass


def locks_of_git(tree, admin):
    for name in ("index.lock", "HEAD.lock"):
        (admin / name).write_text("")
    (tree / ".." / ".." / ".git" / "refs" / "heads" / "fix.lock").write_text("")


def some_files(tree, admin):
    (admin / "index.lock").write_text("half")
    (tree / "README").write_text("docs\n")
    (tree / "src").mkdir()
    (tree / "src" / "file1").write_text("")


def a_branch_already(tree, _admin):
    git(tree, "update-ref", "--create-reflog", "-m", f"{_branch_marks.MESSAGE}shop/fix", "refs/heads/fix", "HEAD")


def on_its_branch(tree, admin):
    a_branch_already(tree, admin)
    git(tree, "checkout", "--quiet", "--force", "fix")
    (tree / "src" / "file1").unlink()


def finished_but_for_the_lock(tree, admin):
    a_branch_already(tree, admin)
    git(tree, "checkout", "--quiet", "--force", "fix")
    (admin / "parallel-worktrees.json").write_text('{"owner": "shop/fix"}')


def folder_gone(tree, _admin):
    shutil.rmtree(tree)


HALVES = [
    *(only_the_folder_of_git, only_the_lock, only_half_of_the_lock, no_dot_git, an_empty_dot_git, no_head),
    *(a_head_of_zeros, an_empty_commondir, no_index, locks_of_git, some_files, a_branch_already, on_its_branch),
    *(finished_but_for_the_lock, folder_gone),
]


@pytest.mark.parametrize("half", HALVES)
def test_what_a_killed_making_leaves(sample, half):
    half(*half_made(sample))
    assert_made(sample, ["docs"])
    assert_removed(sample, ["docs"])
    half(*half_made(sample))
    assert_removed(sample, ["docs"])
    half(*half_made(sample))
    sample.make(worktrees=[sample.member("docs", existing_branch="refuse")])
    assert_removed(sample, ["docs"])


def test_work_in_a_half_made_worktree_is_saved(sample):
    tree, _admin = half_made(sample)
    (tree / "mine").write_text("mine\n")
    (tree / "src").mkdir()
    (tree / "src" / "file1").write_text("edited\n")
    result = sample.make("docs")
    assert [one["name"] for one in result["saved"]] == ["docs"]
    ref = result["saved"][0]["ref"]
    assert git(sample.docs, "show", f"{ref}^3:mine") == "mine"
    assert git(sample.docs, "show", f"{ref}:src/file1") == "edited"
    assert status(tree) == "?? mine"
    git(sample.docs, "worktree", "lock", "--reason", MAKING, str(tree))
    sample.remove("docs")
    assert len(saved(sample.docs)) == 2
    assert worktrees(sample.docs) == {}


def test_the_half_made_worktrees_of_others_stay(sample):
    """Those of another git at work, of other tasks, and broken ones that nobody began here."""
    folder = sample.docs / ".git" / "worktrees"
    for name, lock in (("fix", "initializing"), ("other", MAKING)):
        (folder / name).mkdir(parents=True)
        (folder / name / "locked").write_text(lock)
        (folder / name / "gitdir").write_text(f"{sample.root}/{name}/.git\n")
    sample.make("docs")
    assert (folder / "fix" / "locked").read_text() == "initializing"
    assert (folder / "other").exists()
    sample.remove("docs")
    assert sorted(path.name for path in folder.iterdir()) == ["fix", "other"]
    (folder / "fix" / "commondir").write_text("")
    (folder / "fix" / "HEAD").write_text(git(sample.docs, "rev-parse", "HEAD"))
    refused(sample.run("docs"), "environment", "listing the worktrees", f"rm -r {folder}/fix")


def test_check_mode_tells_what_only_a_real_run_mends(sample):
    an_empty_commondir(*half_made(sample))
    refused(sample.run("docs", check=True), "environment", "a killed run left this", "without --check")
    sample.make("docs")


def test_a_removal_that_got_half_way(sample):
    sample.make("backend")
    sample.tree("backend").rename(sample.root / "aside")  # moved away, but not yet forgotten by git
    assert_removed(sample, ["backend"])
    sample.make("docs")
    common = sample.docs / ".git"
    (common / "parallel-worktrees-trash" / "0123").mkdir(parents=True)
    (common / "parallel-worktrees-trash" / "0123" / "file").write_text("")
    (common / "info" / ".exclude.parallel-worktrees").write_text("half")
    aside = sample.tree("docs").parent / ".parallel-worktrees-trash-0123"
    (common / "parallel-worktrees-trash" / "0123.elsewhere").write_text(str(aside))
    aside.mkdir()
    (aside / "read-only").mkdir()
    (aside / "read-only" / "file").write_text("")
    (aside / "read-only").chmod(0o500)
    assert_removed(sample, ["docs"])


def test_the_trash_of_a_run_long_ago_goes_with_the_next(sample):
    (sample.docs / ".git" / "parallel-worktrees-trash" / "0123").mkdir(parents=True)
    assert not sample.remove("docs")["changed"]
    assert sample.traces() == []


def test_a_lock_that_a_living_git_holds_is_waited_for(sample, tmp_path):
    """Python is gone, its git is not: the next run must not take what that one is at work on for left behind."""
    slow = tmp_path / "git"
    slow.write_text(
        f"#!/bin/sh\ncase $* in *' checkout '*) sleep 1; touch {tmp_path}/done ;; esac\n"
        f'exec {shutil.which("git")} "$@"\n'
    )
    slow.chmod(0o755)
    path = os.environ["PATH"]
    params = sample.params("docs")
    pid = child(lambda: _worktrees.operation(params, check=False), lambda: os.environ.update(PATH=f"{tmp_path}:{path}"))
    while not sample.tree("docs").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not (tmp_path / "done").exists()
    sample.make("docs")
    assert (tmp_path / "done").exists()
    assert_made(sample, ["docs"])


# Many at once


def wait_for(processes):
    answers = []
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, (out + err).decode()
        answers.append(json.loads(out))
    return answers


def test_twenty_tasks_at_once(sample):
    tasks = [f"t{number}" for number in range(20)]
    wait_for([sample.start(task=task) for task in tasks])
    for name in (*NAMES, "backend/migrations"):
        assert sorted(filter(None, worktrees(sample.work / name).values())) == sorted(tasks)
    assert [task for task in tasks for name in NAMES if status(sample.tree(name, task))] == []
    wait_for([sample.start(task=task, state="absent", delete_branch=True) for task in tasks])
    assert sample.traces() == []
    assert [branches(sample / name) for name in NAMES] == [["main"]] * 4


def test_the_same_task_ten_times_at_once(sample):
    answers = wait_for([sample.start() for _number in range(10)])
    assert sum(answer["changed"] for answer in answers) == 1
    assert all(worktrees(sample / name) == {str(sample.tree(name)): "fix"} for name in NAMES)
    (sample.tree("docs") / "mine").write_text("mine\n")
    answers = wait_for([sample.start(state="absent", force=True) for _number in range(10)])
    assert sum(answer["changed"] for answer in answers) == 1
    assert len(saved(sample.docs)) == 1
