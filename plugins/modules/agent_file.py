#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_file
short_description: Write what an agent must know of its task into the files that agents read
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Writes a block of its own, between two marks, into files such as C(AGENTS.md) and C(CLAUDE.md) of a worktree. What
    else is in such a file stays.
  - A file that git tracks is left alone and told, and so is a symbolic link. To tell agents more than the project's own
    file does, name another, such as C(CLAUDE.local.md).
  - What is written is kept out of git in that worktree alone (see the notes), and noted in git's folder for it, so that
    its removal can tell it from work.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.excluded
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  worktrees:
    description:
      - The worktrees.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the repository.
        type: str
        required: true
      path:
        description:
          - Folder of the worktree.
        type: path
        required: true
  files:
    description:
      - The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - The file, from the folder of the worktree. A path that leads out of it is refused.
        type: str
        required: true
      repo:
        description:
          - Name of the one of O(worktrees) that it goes to. It goes to all of them otherwise.
        type: str
      content:
        description:
          - What to write. It defaults to O(text).
        type: str
      whole:
        description:
          - Whether the content is the whole file, without marks, as files need that begin with a front matter. One that
            somebody wrote or edited is left alone then, and told.
        type: bool
        default: false
  text:
    description:
      - What is written into files that say nothing else.
      - C(PARALLEL_WORKTREES_DATABASE_PASSWORD) in it is masked.
    type: str
    default: ""
seealso:
  - module: parallel.worktrees.env_file
"""

EXAMPLES = r"""
- name: Tell agents where they are
  parallel.worktrees.agent_file:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
    text: |
      Work in this folder only. The database is at port {{ task_facts.ports.database }}.
    files:
      - path: AGENTS.md
      - path: CLAUDE.md
      - path: .claude/commands/spawn.md
        whole: true
        content: "{{ lookup('ansible.builtin.template', workspace_root ~ '/spawn.md.j2') }}"
"""

RETURN = r"""
actions:
  description: What was written, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - write /srv/shop/backend/.worktrees/fix-login/AGENTS.md
files:
  description: The files that are as this call wants them.
  returned: success
  type: list
  elements: str
  sample:
    - /srv/shop/backend/.worktrees/fix-login/AGENTS.md
left:
  description: The files that were left alone, and why, a line each.
  returned: success
  type: list
  elements: str
  sample:
    - "/srv/shop/backend/.worktrees/fix-login/AGENTS.md was left alone: git tracks it"
summary:
  description: RV(left) for people; V(none) where nothing was.
  returned: success
  type: str
failure:
  description:
    - V(user) for a path that leads out of the worktree.
    - V(environment) for a file that cannot be written.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: name a path within it
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._agents import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
