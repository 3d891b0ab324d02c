# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the workspace file."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _workspace_file
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError
from ansible_collections.parallel.worktrees.plugins.module_utils._workspace_file import given, missing, nearest


def _git(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def shop(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a workspace file, and in it a repository with a commit."""
    (tmp_path / "shop" / "api" / "src").mkdir(parents=True)
    (tmp_path / "shop" / "workspace.yml").write_text("worktrees_repos: [api]\n")
    (tmp_path / "shop" / "api" / "src" / "main.py").write_text("")
    _git(tmp_path / "shop" / "api", "init", "--quiet")
    _git(tmp_path / "shop" / "api", "add", "--all")
    _git(tmp_path / "shop" / "api", "commit", "--quiet", "--message", "First")
    return tmp_path / "shop"


@pytest.mark.parametrize("folder", [".", "api", "api/src", "api/not/made/yet"])
def test_the_nearest_file_above(shop: pathlib.Path, folder: str) -> None:
    assert nearest(shop / folder) == shop / "workspace.yml"


def test_the_nearest_of_two_wins(shop: pathlib.Path) -> None:
    (shop / "api" / "workspace.yml").write_text("")
    assert nearest(shop / "api" / "src") == shop / "api" / "workspace.yml"


@pytest.mark.parametrize("kind", ["folder", "link to nothing", "pipe"])
def test_what_is_no_file_does_not_lead_to_the_workspace_above(shop: pathlib.Path, kind: str) -> None:
    place = shop / "api" / "workspace.yml"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/not/mounted/workspace.yml")
    with pytest.raises(UserError, match=str(place)):
        nearest(shop / "api" / "src")


@pytest.mark.parametrize("place", ["shop/api/.worktrees/fix", "elsewhere/fix"])
def test_from_inside_a_worktree_wherever_it_lies(shop: pathlib.Path, place: str) -> None:
    worktree = shop.parent / place
    _git(shop / "api", "worktree", "add", "--quiet", str(worktree))
    assert nearest(worktree / "src") == shop / "workspace.yml"


def test_a_file_in_git_counts_where_the_main_tree_has_it(shop: pathlib.Path) -> None:
    (shop / "api" / "workspace.yml").write_text("")
    _git(shop / "api", "add", "--all")
    _git(shop / "api", "commit", "--quiet", "--message", "The workspace")
    _git(shop / "api", "worktree", "add", "--quiet", ".worktrees/fix")
    worktree = shop / "api" / ".worktrees" / "fix"
    assert (worktree / "workspace.yml").exists()
    assert nearest(worktree) == shop / "api" / "workspace.yml"


def test_a_submodule_lies_in_the_worktree_of_its_repository(shop: pathlib.Path) -> None:
    _git(shop.parent, "clone", "--quiet", "--bare", "shop/api", "library.git")
    allowed = ("-c", "protocol.file.allow=always")
    _git(shop / "api", *allowed, "submodule", "add", "--quiet", str(shop.parent / "library.git"), "lib")
    _git(shop / "api", "commit", "--quiet", "--message", "A submodule")
    worktree = shop.parent / "elsewhere"
    _git(shop / "api", "worktree", "add", "--quiet", str(worktree))
    _git(worktree, *allowed, "submodule", "update", "--init", "--quiet")
    assert nearest(worktree / "lib" / "src") == shop / "workspace.yml"


def test_no_file(tmp_path: pathlib.Path) -> None:
    assert nearest(tmp_path) is None


def test_what_is_said_without_a_file(tmp_path: pathlib.Path) -> None:
    said = missing(tmp_path / "a", ["task=x"])
    assert f"{tmp_path / 'a'}, {tmp_path}, " in str(said)
    assert "-e workspace_file=PATH" in str(said.hint)
    assert "-e @workspace.yml" in str(missing(tmp_path, ["task=x", "workspace.yml"]).hint)


def test_another_users_file_is_not_read_unasked(shop: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = (shop / "workspace.yml").stat().st_uid
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(_workspace_file, "ROOT", -1)  # the tests may run as root
    with pytest.raises(UserError, match=f"uid {owner}"):
        nearest(shop)
    assert given(str(shop / "workspace.yml")) == shop / "workspace.yml"


def test_a_named_file_that_is_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"workspace_file=.*/none\.yml"):
        given(str(tmp_path / "none.yml"))
