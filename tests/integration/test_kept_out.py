# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that git tracks and that a provision changes: no work of the task, in no commit of it, and never lost."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from integration.repos import Sample, branches, call, commit, git, refused, restore, status, succeeded

from ansible_collections.parallel.worktrees.plugins.module_utils import _env_files, _gates, _integration

FILE = {"repo": "docs", "path": "conf.env", "values": {"NAME": "fix"}, "rewrite_paths": True}
CLEAN = {"name": "clean", "git": "clean"}


def written(sample: Sample, *, check: bool = False, **more):
    given = [{"name": "docs", "path": str(sample.tree("docs")), "source": str(sample.docs)}]
    return succeeded(call(_env_files, check=check, worktrees=given, files=[{**FILE, **more}]))


@pytest.fixture
def conf(sample: Sample) -> pathlib.Path:
    """A tracked file of a task, into which a provision has put the worktree's paths."""
    (sample.docs / "conf.env").write_text(f"NAME=main\nROOT={sample.docs}/data\n")
    git(sample.docs, "add", "--", "conf.env")
    git(sample.docs, "commit", "--quiet", "--message", "conf")
    sample.make("docs")
    planned = written(sample, check=True)
    assert status(sample.tree("docs")) == ""
    assert planned == written(sample)
    return sample.tree("docs") / "conf.env"


def integrated(sample: Sample, tmp_path: pathlib.Path):
    worktree = {"name": "docs", "path": str(sample.tree("docs"))}
    return call(
        _integration, workspace="shop", task="fix", worktrees=[worktree], target="main", directory=str(tmp_path / "in")
    )


def test_what_was_written_reaches_no_commit(sample, conf, tmp_path):
    tree = conf.parent
    ours = f"NAME=fix\nROOT={tree}/data\n"
    assert conf.read_text() == ours
    assert status(tree) == ""
    assert not written(sample)["changed"]
    (tree / "work").write_text("work\n")
    (tree / "README").write_text("work\n")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--all", "--message", "work")
    assert git(tree, "show", "--format=", "--name-only").split() == ["README", "work"]
    worktree = {"name": "docs", "path": str(tree)}
    succeeded(call(_gates, worktrees=[worktree], checks=[CLEAN]))
    succeeded(integrated(sample, tmp_path))
    assert git(sample.docs, "show", "main:conf.env") == f"NAME=main\nROOT={sample.docs}/data"
    assert conf.read_text() == ours
    assert sample.remove("docs", delete_branch=True)["saved"] == []


def test_git_keeps_it_whatever_is_done(sample, conf):
    tree, ours = conf.parent, conf.read_text()
    (tree / "README").write_text("work\n")
    harmless = ("stash --include-untracked", "stash pop", "reset --hard", "switch --create other", "switch fix")
    for command in (*harmless, "merge --quiet --no-edit main", "rebase --quiet main", "clean -fd", "checkout -f fix"):
        git(tree, *command.split())
        assert (conf.read_text(), status(tree)) in ((ours, ""), (ours, " M README")), command
    upstream = commit(sample.docs, "conf.env", "NAME=main\nNEW=1\n")
    for words in (["merge", upstream], ["switch", "--detach", upstream], ["reset", "--hard", upstream]):
        done = subprocess.run(["git", "-C", tree, *words], check=False, capture_output=True)
        assert (done.returncode != 0, conf.read_text()) == (True, ours), words
    # The way that the page names: what is written there is made again.
    git(tree, "update-index", "--no-skip-worktree", "conf.env")
    git(tree, "checkout", "--", "conf.env")
    git(tree, "merge", "--quiet", upstream)
    assert written(sample)["changed"]
    assert (conf.read_text(), status(tree)) == ("NAME=fix\nNEW=1\n", "")


def test_an_edit_of_it_is_work(sample, conf, tmp_path):
    tree = conf.parent
    commit(tree)
    edited = conf.read_text() + "MINE=1\n"
    conf.write_text(edited)
    assert not written(sample)["changed"]
    worktree = {"name": "docs", "path": str(tree)}
    told = "conf.env; let git show it: git -C"
    refused(call(_gates, worktrees=[worktree], checks=[CLEAN]), "user", told)
    refused(integrated(sample, tmp_path), "user", told, "--no-skip-worktree")
    refused(sample.run("docs", state="absent"), "user", "conf.env", "--no-skip-worktree")
    result = sample.remove("docs", force=True, delete_branch=True)
    restore(result)
    assert conf.read_text() == edited
    assert branches(sample.docs) == ["main"]


def test_work_that_was_there_before_is_not_hidden(sample):
    tree = sample.tree("docs")
    commit(sample.docs, "conf.env", "NAME=main\nOTHER=1\n")
    sample.make("docs")
    (tree / "conf.env").write_text("NAME=main\nOTHER=2\n")
    written(sample)
    assert ((tree / "conf.env").read_text(), status(tree)) == ("NAME=fix\nOTHER=2\n", " M conf.env")
    refused(sample.run("docs", state="absent"), "user", "uncommitted: conf.env")


def test_what_looks_changed_is_told_by_its_content(sample):
    """In a sparse checkout git shows the file; an earlier version did not hide it."""
    commit(sample.docs, "conf.env", "NAME=main\n")
    sample.make("docs")
    tree = sample.tree("docs")
    git(tree, "sparse-checkout", "set", "--no-cone", "/*")
    written(sample)
    assert status(tree) == " M conf.env"
    assert not written(sample)["changed"]
    assert _gates.dirt(str(tree)) == ""
    git(tree, "sparse-checkout", "disable")
    assert (written(sample)["changed"], written(sample)["changed"], status(tree)) == (True, False, "")
    assert sample.remove("docs", delete_branch=True)["saved"] == []


def test_an_adopted_worktree_gets_its_file_back(sample, tmp_path):
    commit(sample.docs, "conf.env", "NAME=main\n")
    tree = tmp_path / "theirs"
    git(sample.docs, "worktree", "add", "--quiet", "-b", "fix", str(tree))
    member = [sample.member("docs", path=str(tree), adopt=True)]
    succeeded(sample.run(worktrees=member))
    given = [{"name": "docs", "path": str(tree), "source": str(sample.docs)}]
    succeeded(call(_env_files, worktrees=given, files=[FILE]))
    assert (tree / "conf.env").read_text() == "NAME=fix\n"
    succeeded(sample.run(worktrees=member, state="absent"))
    assert (tree / "conf.env").read_text() == "NAME=main\n"
    assert git(tree, "ls-files", "-v", "conf.env") == "H conf.env"
