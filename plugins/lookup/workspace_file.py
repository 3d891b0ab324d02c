# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: workspace_file
version_added: 1.0.0
author: parallel.worktrees contributors (@parallel-worktrees)
short_description: Return the path of the workspace file of this run
description:
  - Returns the file that C(-e workspace_file=PATH) names. Without it, returns the first file given with C(-e @PATH)
    that has C(worktrees_repos). Otherwise, returns the C(workspace.yml) in the current folder or in the nearest folder
    above it.
  - In a linked worktree, the search starts at the same place in the main working tree.
  - A file that the search finds must belong to the user who runs Ansible, or to root.
options:
  _terms:
    description: The lookup takes no terms.
  required:
    description: Whether to fail if there is no workspace file.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show which workspace file is read
  ansible.builtin.debug:
    msg: "{{ lookup('parallel.worktrees.workspace_file') }}"
"""

RETURN = r"""
_raw:
  description: The absolute path, or an empty string if there is no workspace file.
  type: list
  elements: str
"""

import functools
import pathlib
import typing as t

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils import _workspace_file
from ..module_utils._errors import UserError

if t.TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar

_LISTS_REPOSITORIES = "worktrees_repos"


class LookupModule(LookupBase):
    _loader: DataLoader
    _templar: Templar

    def run(
        self,
        terms: list[t.Any],  # noqa: ARG002 - Ansible calls it so
        variables: dict[str, t.Any] | None = None,
        **kwargs: t.Any,
    ) -> list[str]:
        named = (variables or {}).get("workspace_file")
        try:
            if named is not None:
                return [str(_workspace_file.given(str(self._templar.template(named))))]
            found = self._given_with_at() or _nearest()
            if not found and kwargs.get("required"):
                raise _workspace_file.missing(pathlib.Path.cwd(), context.CLIARGS.get("extra_vars") or ())
            return [found]
        except UserError as error:
            raise AnsibleLookupError(error.as_result()["msg"]) from None  # Ansible repeats the message of a cause

    def _given_with_at(self) -> str:
        """The first of the ``-e @FILE`` that lists repositories: others may hold secrets, or the task."""
        for text in context.CLIARGS.get("extra_vars") or ():
            # Ansible calls it unsafe where it makes no copy, and a copy for each look is slow.
            if text.startswith("@") and _LISTS_REPOSITORIES in (
                self._loader.load_from_file(text[1:], unsafe=True) or ()
            ):
                return str(pathlib.Path(text[1:]).absolute())
        return ""


@functools.cache
def _nearest() -> str:
    return str(_workspace_file.nearest(pathlib.Path.cwd()) or "")
