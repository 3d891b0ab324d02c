# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user has set for his own git commands, and programs that he lacks: what is made here is the same."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from integration.repos import (
    FILE_PROTOCOL,
    Sample,
    branches,
    call,
    commit,
    git,
    refused,
    restore,
    status,
    succeeded,
    worktrees,
)

from ansible_collections.parallel.worktrees.plugins.module_utils import _git, _integration

SETTINGS = """
[user]
    name = Tester
    email = tester@example.invalid
[clone]
    defaultRemoteName = upstream
[init]
    templateDir = {template}
    defaultRefFormat = reftable
[fetch]
    prune = true
    pruneTags = true
    all = true
    recurseSubmodules = true
    writeCommitGraph = true
[remote "origin"]
    prune = true
    pruneTags = true
    tagOpt = --tags
[push]
    followTags = true
    recurseSubmodules = only
    default = nothing
[submodule]
    recurse = true
[branch]
    autoSetupMerge = always
    autoSetupRebase = always
[merge]
    ff = only
    autoStash = true
    conflictStyle = diff3
[commit]
    cleanup = strip
[core]
    commentChar = M
    autocrlf = input
[i18n]
    commitEncoding = ISO-8859-1
    logOutputEncoding = ISO-8859-1
[status]
    showUntrackedFiles = no
    short = true
    showStash = true
    relativePaths = true
[diff]
    ignoreSubmodules = all
    noprefix = true
[color]
    ui = always
[column]
    ui = always
[log]
    showSignature = true
[checkout]
    defaultRemote = upstream
[worktree]
    guessRemote = true
[gc]
    auto = 1
    autoDetach = false
    pruneExpire = now
    worktreePruneExpire = now
"""


@pytest.fixture
def user(sample: Sample, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """The sample, with all that a user may have set in the file that git reads for every repository of his."""
    template = tmp_path / "template"
    (template / "hooks").mkdir(parents=True)
    (template / "hooks" / "pre-push").write_text("#!/bin/sh\nexit 1\n")
    (template / "hooks" / "pre-push").chmod(0o755)
    (template / "config").write_text("[core]\n\tworktree = /nowhere\n")
    file = tmp_path / "gitconfig"
    file.write_text(SETTINGS.format(template=template))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(template))
    for name, value in FILE_PROTOCOL.items():
        monkeypatch.setenv(name, value)
    return sample


def integrated(sample: Sample, tmp_path: pathlib.Path, name: str, task: str = "fix") -> t.Any:
    worktree = {"name": name, "path": str(sample.tree(name, task)), "submodules": []}
    folder = str(tmp_path / "in")
    return call(_integration, workspace="shop", task=task, worktrees=[worktree], target="main", directory=folder)


@pytest.mark.usefixtures("user")
def test_a_submodule_is_cloned_as_ever(sample):
    sample.forget_submodule()
    sample.make("backend")
    common = sample.backend / ".git" / "modules" / "migrations"
    inner = sample.tree("backend") / "migrations"
    assert git(common, "remote") == "origin"
    assert not (common / "hooks").exists()
    assert (git(inner, "rev-parse", "--show-toplevel"), status(inner)) == (str(inner), "")
    commit(inner)
    assert [one["remote"] for one in sample.remove("backend", push=True)["pushed"]] == ["origin"] * 2
    assert "fix" in branches(sample.remotes / "migrations.git")


@pytest.mark.usefixtures("user")
def test_nothing_is_fetched_pushed_or_followed_beside_what_is_asked(sample):
    git(sample.docs, "update-ref", "refs/remotes/origin/gone", "main")
    git(sample.docs, "tag", "mine")
    work = commit(sample.app)
    git(sample.remotes / "docs.git", "tag", "theirs", "main")
    before = git(sample.docs, "for-each-ref", "--format=%(refname)")
    member = [sample.member("docs", base="origin/main"), sample.member("app")]
    succeeded(sample.run(worktrees=member))
    after = git(sample.docs, "for-each-ref", "--format=%(refname)")
    assert after.split() == sorted([*before.split(), "refs/heads/fix"])
    for tree in (sample.tree("docs"), sample.tree("app")):
        assert git(tree, "for-each-ref", "--format=%(upstream)", "refs/heads/fix") == ""
    lone = [sample.member("informes", checkout=False, path=None, base="origin/main")]
    succeeded(sample.run(worktrees=lone))
    assert git(sample.informes, "for-each-ref", "--format=%(upstream)", "refs/heads/fix") == ""
    git(sample.tree("app"), "tag", "--annotate", "--message", "mine", "mine")
    succeeded(sample.run(worktrees=member, state="absent", push=True))
    assert git(sample.remotes / "app.git", "for-each-ref", "--format=%(refname)").split() == [
        "refs/heads/fix",
        "refs/heads/main",
    ]
    assert git(sample.remotes / "app.git", "rev-parse", "fix") == work


@pytest.mark.usefixtures("user")
def test_integration_merges_as_ever(sample, tmp_path):
    for task in ("fix", "other"):
        sample.make("docs", task=task)
        commit(sample.tree("docs", task), "README", f"{task}\n")
    succeeded(integrated(sample, tmp_path, "docs"))
    message = git(sample.docs, "log", "-1", "--format=%B", "main")
    assert message.splitlines() == ["Merge branch 'fix' into integration", "", "Task: fix"]
    assert b"\nencoding " not in bytes(git(sample.docs, "cat-file", "commit", "main"), "utf-8")
    assert (sample.docs / "README").read_text() == "fix\n"
    refused(integrated(sample, tmp_path, "docs", "other"), "user", "conflicts with integration in README;")
    assert sorted(worktrees(sample.docs).values(), key=str) == [None, "fix", "other"]


@pytest.mark.usefixtures("user")
def test_work_is_seen_and_saved_as_ever(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    (tree / "new").write_bytes(b"one\r\ntwo\r\n")
    refused(sample.run("docs", state="absent"), "user", "uncommitted: new")
    restore(sample.remove("docs", force=True))
    assert (tree / "new").read_bytes() == b"one\r\ntwo\r\n"


# Programs


@pytest.mark.parametrize("kind", ["smudge", "process"])
def test_a_filter_program_that_is_missing_is_named(sample, kind):
    (sample.docs / ".gitattributes").write_text("*.bin filter=big\n")
    (sample.docs / "a.bin").write_text("big\n")
    git(sample.docs, "add", "--all")
    git(sample.docs, "commit", "--quiet", "--message", "big")
    git(sample.docs, "config", f"filter.big.{kind}", "git-no-such-lfs smudge -- %f")
    git(sample.docs, "config", "filter.big.required", "true")
    result = sample.run("docs")
    refused(result, "environment", "checking out fix")
    assert "apt install git-no-such-lfs" in result["hint"]
    assert [*sample.remove("docs")["branches"], "main"] == branches(sample.docs)
    git(sample.docs, "config", f"filter.big.{kind}", "cat" if kind == "smudge" else "")
    git(sample.docs, "config", "filter.big.required", "false")
    sample.make("docs")
    assert (sample.tree("docs") / "a.bin").read_text() == "big\n"


def test_a_branch_that_was_never_made_is_not_said_to_stay(sample):
    """As a run leaves it that was killed before it made the branch."""
    making = ("--detach", "--lock", "--reason", _git.MAKING)
    git(sample.docs, "worktree", "add", "--quiet", *making, str(sample.tree("docs")))
    assert sample.remove("docs")["branches"] == []
    assert branches(sample.docs) == ["main"]
