#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: git_worktree_info
short_description: Tell of a worktree that is there
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Tells of a linked worktree which of several repositories it is of, its branch, and its owner.
  - It may have been made by another tool. M(parallel.worktrees.git_worktree) can adopt such a one.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing that it changes.
  idempotent:
    support: full
options:
  path:
    description:
      - Top folder of the worktree.
      - A folder that is no linked worktree of O(repos) is refused. So is a main working tree, a folder inside of a
        worktree, and a worktree that is on no branch.
    type: path
    required: true
  repos:
    description:
      - The repositories that it may be of.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What to call the repository.
        type: str
        required: true
      repo:
        description:
          - Its main working tree.
        type: path
        required: true
requirements:
  - git >= 2.36
seealso:
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: Look at the worktree that another tool made
  parallel.worktrees.git_worktree_info:
    path: /home/ada/conductor/shop/lisbon
    repos:
      - name: backend
        repo: "{{ workspace_root }}/backend"
  register: found

- name: Adopt it
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
  description: Empty, since nothing is ever changed.
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
      description: What the repository is called.
      type: str
      sample: backend
    repo:
      description: Its main working tree.
      type: str
      sample: /srv/shop/backend
    path:
      description: The worktree's folder, absolute and without symbolic links.
      type: str
      sample: /home/ada/conductor/shop/lisbon
    branch:
      description: The branch it is on.
      type: str
      sample: feat/oauth_v2
    owner:
      description: Its owner, from its mark; V(none) where there is no mark.
      type: str
      sample: shop/feat/oauth_v2@9dda1566
    adopt:
      description: Whether another tool made it, so that M(parallel.worktrees.git_worktree) can adopt it or has done so.
      type: bool
      sample: true
failure:
  description:
    - V(user) where there is no such worktree, V(environment) where git did not do its part.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
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
