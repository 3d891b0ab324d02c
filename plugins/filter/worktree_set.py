# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import collections.abc as c
import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils import _workspace
from ..module_utils._errors import UserError

DOCUMENTATION = r"""
name: worktree_set
version_added: 1.0.0
author: parallel.worktrees contributors (@parallel-worktrees)
short_description: Complete the repositories of a workspace for one task
description:
  - Takes C(worktrees_repos) of a workspace file, selects the repositories, and sets every default.
  - Returns the options that one module of this collection takes for each repository.
positional: module
options:
  _input:
    description: The repositories. An entry is a name, or a dictionary with at least C(name).
    type: list
    elements: raw
    required: true
  module:
    description: The module that takes the result.
    type: str
    choices:
      - agent_file
      - env_file
      - git_worktree
      - git_worktree_info
      - task_info
      - worktree_hooks
      - worktree_setup
    required: true
  root:
    description: The folder that the paths of repositories are relative to.
    type: str
    required: true
  folder:
    description: The folder of a worktree within its repository, unless the repository sets it.
    type: str
    default: ""
  branch:
    description: The branch of the task, unless the repository sets it.
    type: str
    default: ""
  selection:
    description: Names of repositories separated by commas, or V(all).
    type: str
    default: all
  planned:
    description:
      - The existing or planned worktrees of the task, each with C(name), C(path) and C(branch). If another tool made a
        worktree (C(adopt)), the task has only these worktrees, and O(selection), O(folder) and O(branch) are ignored.
    type: list
    elements: dict
    default: []
  checkout:
    description:
      - Whether a task has a worktree of a repository, unless the repository or O(planned) sets it. A repository without
        a worktree is left out, except for C(git_worktree).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Make the worktrees of a task
  parallel.worktrees.git_worktree:
    worktrees: "{{ worktrees_repos | parallel.worktrees.worktree_set('git_worktree', root=workspace_root,
      folder='.worktrees/fix-login', branch='fix-login') }}"
    owner: shop/fix-login
"""

RETURN = r"""
_value:
  description: A dictionary for each repository, with the options that the module takes.
  type: list
  elements: dict
"""


def worktree_set(
    repos: list[t.Any],
    module: str,
    root: str,
    folder: str = "",
    branch: str = "",
    selection: str = "all",
    planned: t.Sequence[dict[str, t.Any]] = (),
    checkout: bool = True,
) -> list[dict[str, t.Any]]:
    if set(_workspace.VIEWS[module]) == {"name", "repo"}:
        # Of no task: what else is said of a repository may need the facts of one, and is not to be looked at.
        repos = [_place(repo) for repo in repos]
    try:
        complete = _workspace.worktree_set(
            repos, root=root, folder=folder, branch=branch, selection=selection, planned=planned, checkout=checkout
        )
    except UserError as error:
        raise AnsibleFilterError(error.as_result()["msg"]) from error
    return _workspace.view(complete, module)


def _place(repo: t.Any) -> t.Any:
    """Just the name and the path of a repository."""
    if not isinstance(repo, c.Mapping):
        return repo
    return {key: repo[key] for key in ("name", "path") if key in repo}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"worktree_set": worktree_set}
