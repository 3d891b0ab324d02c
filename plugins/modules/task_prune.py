#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_prune
short_description: Remove resources that no task needs
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Reports worktrees, databases and leases that carry an ownership mark of this registry and whose task has no record,
    tasks that are ready although all of their worktrees are missing, and golden databases that newer golden databases
    have replaced. With O(apply=true), the module removes them.
  - If the removal of a resource fails, the others are still removed.
  - A worktree with work in it is kept, unless O(force=true).
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
      - The workspace to check. It defaults to all workspaces in the registry.
    type: str
  apply:
    description:
      - Whether to remove the resources. Otherwise they are only reported.
    type: bool
    default: false
  force:
    description:
      - Remove a worktree even if work would be lost. The work is saved first, under C(refs/worktrees-saved/), as with
        O(parallel.worktrees.git_worktree#module:force).
      - Remove also resources that carry the mark of another registry. B(The tasks of that registry may be in use), and
        their databases are removed with all of their data.
      - Remove also databases that were kept when their tasks were torn down, see RV(kept).
    type: bool
    default: false
seealso:
  - module: parallel.worktrees.task_info
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: Report the leftovers
  parallel.worktrees.task_prune:
    workspace: shop
    repos:
      - name: backend
        repo: "{{ workspace_root }}/backend"
    backend: embedded
  register: left

- name: Remove the leftovers
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
  description: The O(branches) for which no task is registered. Remove them with M(parallel.worktrees.pg_branch).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the branch.
      type: str
    owner:
      description: The owner in the mark of the branch.
      type: str
actions:
  description: What was removed, or would be removed in check mode. Empty unless O(apply=true).
  returned: success
  type: list
  elements: str
  sample:
    - "remove embedded shop_mend_cart: no task is registered for it"
leftovers:
  description: The resources that no task needs.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description:
        - One of V(worktree), V(container), V(embedded), V(shared), V(lease), V(task), V(trash), which is what removals
          have left in a repository, V(integration), the worktree that an integration used, V(golden), a golden database
          that a newer golden database has replaced, and V(slot), the slot of a database that was kept and no longer
          exists.
      type: str
      sample: embedded
    name:
      description: The folder of a worktree, the name of a database, the slot of a lease, or the workspace and the task.
      type: str
      sample: shop_mend_cart
    why:
      description: The reason why no task needs it.
      type: str
      sample: no task is registered for it
kept:
  description:
    - Databases that were kept when their tasks were torn down. They are not removed. With O(force=true) they are in
      RV(leftovers) instead.
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
      description: The owner in the mark of the database.
      type: str
      sample: shop/fix-login@9dda1566
report:
  description: The result as a text for people.
  returned: success
  type: str
  sample: |
    embedded shop_mend_cart: no task is registered for it
    remove them: add -e apply=true
failure:
  description:
    - V(environment) for a registry that is damaged, cannot be read, or has a newer version.
    - V(partial) if a resource could not be removed. The message names it and the reason; the others were removed.
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
