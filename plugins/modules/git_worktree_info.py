#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: git_worktree_info
short_description: Report the repository, branch and owner of a worktree
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Reports for a linked worktree the repository that it belongs to, its branch, and its owner.
  - The worktree may have been made by another tool. M(parallel.worktrees.git_worktree) can adopt such a worktree.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The module changes nothing.
  idempotent:
    support: full
options:
  path:
    description:
      - The top folder of the worktree.
      - A folder that is not a linked worktree of O(repos) is refused. So are a main working tree, a folder inside a
        worktree, and a worktree without a checked out branch.
    type: path
    required: true
  repos:
    description:
      - The repositories that the worktree may belong to.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the repository.
        type: str
        required: true
      repo:
        description:
          - The main working tree of the repository.
        type: path
        required: true
requirements:
  - git >= 2.36
seealso:
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: Report the worktree that another tool made
  parallel.worktrees.git_worktree_info:
    path: /home/ada/conductor/shop/lisbon
    repos:
      - name: backend
        repo: "{{ workspace_root }}/backend"
  register: found

- name: Adopt the worktree
  parallel.worktrees.git_worktree:
    owner: "shop/{{ found.worktree.branch }}"
    worktrees:
      - name: "{{ found.worktree.name }}"
        repo: "{{ found.worktree.repo }}"
        path: "{{ found.worktree.path }}"
        branch: "{{ found.worktree.branch }}"
        adopt: true
"""

RETURN = r"""
actions:
  description: Always empty, since the module changes nothing.
  returned: success
  type: list
  elements: str
  sample: []
worktree:
  description: The worktree.
  returned: success
  type: dict
  contains:
    name:
      description: Name of the repository.
      type: str
      sample: backend
    repo:
      description: The main working tree of the repository.
      type: str
      sample: /srv/shop/backend
    path:
      description: The worktree's folder, absolute and without symbolic links.
      type: str
      sample: /home/ada/conductor/shop/lisbon
    branch:
      description: The branch that is checked out.
      type: str
      sample: feat/oauth_v2
    owner:
      description: The owner in its mark; V(none) if it has no mark.
      type: str
      sample: shop/feat/oauth_v2@9dda1566
    adopt:
      description:
        - Whether another tool made the worktree, so that M(parallel.worktrees.git_worktree) can adopt it or has adopted
          it.
      type: bool
      sample: true
failure:
  description:
    - V(user) if the worktree is not found, V(environment) if git fails.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "see what there is: git -C /srv/shop/backend worktree list"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._adoption import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
