# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories of which a task has its branch alone, as a workspace file says so."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _workspace
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError


def worktree_set(*repos: t.Any, **more: t.Any) -> list[dict[str, t.Any]]:
    return _workspace.worktree_set(repos, root="/srv", folder=".worktrees/fix", branch="fix", **more)


@pytest.mark.parametrize(
    ("usual", "own", "planned", "expected"),
    [
        (True, None, None, True),
        (True, False, None, False),
        (True, "no", None, False),
        (False, None, None, False),
        (False, True, None, True),
        # What a task has was settled by the first call.
        (False, None, True, True),
        (True, None, False, False),
        (True, True, False, False),
    ],
)
def test_one_word_says_it(usual, own, planned, expected):
    entry = {"name": "docs"} if own is None else {"name": "docs", "checkout": own}
    former = [] if planned is None else [{"name": "docs", "path": "/srv/docs/x", "branch": "x", "checkout": planned}]
    complete = worktree_set(entry, checkout=usual, planned=former)
    assert [one["checkout"] for one in _workspace.view(complete, "git_worktree")] == [expected]
    for module in ("env_file", "worktree_setup", "worktree_hooks", "agent_file"):
        assert bool(_workspace.view(complete, module)) == expected
    assert _workspace.view(complete, "task_info") == [{"name": "docs", "repo": "/srv/docs"}]


@pytest.mark.parametrize("key", _workspace.OF_WORKTREES)
def test_what_there_is_only_in_a_worktree_is_refused_beside_it(key):
    given = {"folder": "x", "include": "x"}.get(key, ["x"])
    with pytest.raises(UserError, match=f"docs in worktrees_repos has checkout: false.* its {key}") as caught:
        worktree_set({"name": "docs", "checkout": False, key: given})
    assert key in str(caught.value.hint)
    # Of a call without worktrees, it is left out.
    assert worktree_set({"name": "docs", key: given}, checkout=False)
