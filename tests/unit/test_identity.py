# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import re
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _identity
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

BRANCHES = st.text(alphabet="abcXYZ019-_./@{}~^:?*[\\ \t\x7füñ", min_size=1, max_size=12)


def test_the_identity_of_a_branch() -> None:
    identity = _identity.identify("feat/oauth_v2")
    digest = hashlib.sha1(b"feat/oauth_v2").hexdigest()[:6]
    assert identity == _identity.Identity("feat/oauth_v2", "feat/oauth_v2", f"oauth_v2_{digest}", "oauth-v2")


def test_a_branch_of_its_own_gives_the_names() -> None:
    identity = _identity.identify("login", "agent-7/fix-login")
    assert (identity.name, identity.branch, identity.subdomain) == ("login", "agent-7/fix-login", "fix-login")


@given(st.text(min_size=1, max_size=200).filter(lambda text: text.isprintable()))
@example("ünï")
@example("日本")
@example("feature/" + "x" * 190)
@example("a" * 62 + "-b")
def test_names_are_safe_whatever_the_branch(branch: str) -> None:
    identity = _identity.identify(branch)
    assert re.fullmatch(r"[a-z0-9][a-z0-9_]*_[0-9a-f]{6}", identity.slug)
    assert len(identity.slug) <= 47
    for label in (identity.subdomain, _identity.distinct_subdomain(identity).subdomain):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)


@given(BRANCHES, BRANCHES)
def test_two_branches_never_share_a_slug(one: str, other: str) -> None:
    if one != other:
        assert _identity.identify(one).slug != _identity.identify(other).slug


@settings(max_examples=60)
@given(BRANCHES)
@example("@")
@example("HEAD")
@example("-rf")
@example("a..b")
@example("x.lock")
@example("x.lock/y")
@example("a//b")
@example("a/.b")
@example("a/")
@example("a.")
@example("a@{b")
@example("ü")
def test_branches_are_refused_just_where_git_refuses_them(branch: str) -> None:
    asked = subprocess.run(("git", "check-ref-format", "--branch", branch), capture_output=True, check=False, cwd="/")
    # git takes @ for a branch here and for HEAD everywhere else.
    assert (_identity.ref_fault(branch) is None) == (asked.returncode == 0 and branch != "@")


@pytest.mark.parametrize("name", ["fix-login", "a", "A_1", "9", "x" * 100])
def test_task_names_that_are_taken(name: str) -> None:
    _identity.check_task(name)


@pytest.mark.parametrize(
    "name", ["..", "a/b", "-rf", "a;b", "ünï", ".a", "a..b", "x.lock", "x" * 101, "x" * 300, "a b", "a\n", "HEAD", ""]
)
def test_task_names_that_are_refused(name: str) -> None:
    with pytest.raises(UserError) as refused:
        _identity.check_task(name)
    assert refused.value.hint
    assert len(refused.value.message) < 150


def test_a_workspace_may_allow_more_but_not_what_git_refuses() -> None:
    _identity.check_task("feat/oauth_v2", r"[a-z0-9_/.]+")
    with pytest.raises(UserError, match=r"has '\.\.'"):
        _identity.check_task("feat/../main", r"[a-z0-9_/.]+")


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(UserError, match="workspace_task_pattern"):
        _identity.check_task("a", "[")


@pytest.mark.parametrize(
    ("task", "count", "names"),
    [
        ("a", None, ["a"]),
        ("a,b , c", None, ["a", "b", "c"]),
        ("a,a", None, ["a"]),
        ("agent", 3, ["agent-1", "agent-2", "agent-3"]),
    ],
)
def test_expanding(task: str, count: int | None, names: list[str]) -> None:
    assert _identity.expand(task, count) == names


@pytest.mark.parametrize(("task", "count"), [("", None), ("a,,b", None), ("a,b", 2), ("a", 0), ("a", 1000)])
def test_what_cannot_be_expanded(task: str, count: int | None) -> None:
    with pytest.raises(UserError) as refused:
        _identity.expand(task, count)
    assert refused.value.hint
