#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_prune
short_description: Find and remove what no task needs
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Finds worktrees, databases and leases that carry a mark of this registry's ownership and whose task has no record,
    tasks that are ready though all of their worktrees are gone, and golden databases in whose place there are newer
    ones. With O(apply=true), it removes them.
  - If the removal of one fails, the others are removed all the same.
  - A worktree with work in it stays, unless O(force=true).
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.looks
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  workspace:
    description:
      - The workspace to look at. It defaults to all that the registry knows.
    type: str
  apply:
    description:
      - Remove what was found. It is only reported otherwise.
    type: bool
    default: false
  force:
    description:
      - Remove a worktree even if work would be lost. It is saved first, under C(refs/worktrees-saved/), as with
        O(parallel.worktrees.git_worktree#module:force).
      - Take what carries the mark of another registry too. B(The tasks of that registry may be in use), and their
        databases go with all of their data.
      - Remove databases that were kept when their tasks were torn down, see RV(kept).
    type: bool
    default: false
seealso:
  - module: parallel.worktrees.task_info
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: See what is left over
  parallel.worktrees.task_prune:
    workspace: shop
    repos:
      - name: backend
        repo: "{{ workspace_root }}/backend"
    backend: embedded
  register: left

- name: Remove it
  parallel.worktrees.task_prune:
    workspace: shop
    repos:
      - name: backend
        repo: "{{ workspace_root }}/backend"
    backend: embedded
    apply: true
"""

RETURN = r"""
branches:
  description: Those of O(branches) that no task is registered for, which M(parallel.worktrees.pg_branch) removes.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the branch.
      type: str
    owner:
      description: Its owner, from its mark.
      type: str
actions:
  description: What was removed, or would be in check mode. Empty unless O(apply=true).
  returned: success
  type: list
  elements: str
  sample:
    - "remove embedded shop_mend_cart: no task is registered for it"
leftovers:
  description: What was found.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - One of V(worktree), V(container), V(embedded), V(shared), V(lease), V(task), V(trash), what removals have left
          in a repository, V(integration), the worktree that integration has used, V(golden), a golden database in
          whose place there is a newer one, and V(slot), that of a database that was kept and is not found.
      type: str
      sample: embedded
    name:
      description: The folder of a worktree, the name of a database, the slot of a lease, or the workspace and the task.
      type: str
      sample: shop_mend_cart
    why:
      description: Why nobody needs it.
      type: str
      sample: no task is registered for it
kept:
  description:
    - Databases that stay, for they were kept when their tasks were torn down. With O(force=true) they are among
      RV(leftovers).
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: The back end.
      type: str
      sample: embedded
    name:
      description: Name of the database.
      type: str
      sample: shop_fix_login
    owner:
      description: The mark of the task that had it.
      type: str
      sample: shop/fix-login@9dda1566
report:
  description: What to tell a person.
  returned: success
  type: str
  sample: |
    embedded shop_mend_cart: no task is registered for it
    remove them: add -e apply=true
failure:
  description:
    - V(environment) for a registry that is damaged, cannot be read, or is of a newer version.
    - V(partial) if something could not be removed. The message tells what and why; the rest is gone.
  returned: failure
  type: str
  sample: partial
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "look at them; -e force=true saves work first and then removes it"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._prune import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
