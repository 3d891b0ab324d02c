#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worktree_files
short_description: Link and copy files from main working trees into worktrees
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Links or copies what a worktree needs and git does not have, such as installed dependencies.
  - All entries are checked before the first is placed. What somebody else put in such a place is refused.
  - Where a folder of dependencies is linked (C(node_modules), C(vendor), C(.venv), C(venv)), a guard is put into git's
    folder for the worktree, as programs called C(composer), C(npm), C(pnpm), C(yarn), C(bun), C(uv) and C(pip), and
    like each C(python) that is on the PATH. First on the PATH, they refuse what would write through the link, such as
    C(python3 -m pip install), and run the real ones for everything else. They are first for whatever this collection
    runs in the worktree, and in shells by O(parallel.worktrees.env_file#module:shell).
  - What is placed is noted in git's folder for the worktree, so that its removal can tell it from work, and kept out of
    git in that worktree alone (see the notes) where git does not ignore it.
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
      - The worktrees and what goes into them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What to call the repository in messages.
        type: str
        required: true
      path:
        description:
          - Folder of the worktree.
        type: path
        required: true
      source:
        description:
          - The folder that sources start from, mostly the repository's main working tree.
        type: path
        required: true
      links:
        description:
          - What to link to. A symbolic link of ours that points elsewhere is replaced.
          - A C(node_modules) with links to the project's own packages (a workspace of npm, pnpm or yarn) becomes a
            folder whose entries are linked one by one. Those packages are the worktree's own. Every call brings the
            entries up to date, and leaves what somebody has put in their place.
          - A C(vendor) of composer, and a virtual environment in which packages of the main tree are installed, draw
            a warning, as they lead to its code.
        type: list
        elements: dict
        default: []
        suboptions: &entry
          path:
            description:
              - Where it goes, from O(worktrees[].path). A path that leads out of the worktree, as text or through a
                symbolic link, is refused.
            type: str
            required: true
          source:
            description:
              - Where it comes from, absolute or from O(worktrees[].source). It defaults to the same path.
            type: str
          optional:
            description:
              - Whether to pass over a source that does not exist. It is a failure otherwise.
            type: bool
            default: false
      copies:
        description:
          - What to copy, with times and modes. The copy shares its blocks with the source where the file system can
            (Btrfs, XFS and others), and so takes no time and no space.
          - A copy that was made before stays as it is, even if its source has changed since. Remove it to get a new
            one.
          - In a copied virtual environment, and in the programs of a copied C(node_modules), the paths of the main tree
            become those of the worktree. An environment of conda is refused.
        type: list
        elements: dict
        default: []
        suboptions: *entry
      installed:
        description:
          - Folders of dependencies that a set-up command makes. Where a link of ours is in the place of one, it is
            removed.
        type: list
        elements: str
        default: []
      include:
        description:
          - A file in O(worktrees[].source) with patterns as in C(.gitignore). What it matches is copied too, if git
            ignores it; git itself decides both. It may well not exist.
          - A place where something is stays as it is. Nothing is copied that O(worktrees[].links) or
            O(worktrees[].copies) name, nor of other worktrees.
          - Empty, there is no such file.
        type: str
        default: .worktreeinclude
seealso:
  - module: parallel.worktrees.git_worktree
  - module: parallel.worktrees.env_file
"""

EXAMPLES = r"""
- name: Share the dependencies, and give the task a copy of the uploads
  parallel.worktrees.worktree_files:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
        source: "{{ workspace_root }}/backend"
        links:
          - path: vendor
        copies:
          - path: storage/uploads
            optional: true
          - path: config/local.ini
            source: config/local.ini.example
"""

RETURN = r"""
actions:
  description: What was linked and copied, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - link /srv/shop/backend/.worktrees/fix-login/vendor from /srv/shop/backend/vendor
    - copy /srv/shop/backend/.worktrees/fix-login/uploads from /srv/shop/backend/uploads (full copy)
    - guard the shared dependencies of /srv/shop/backend/.worktrees/fix-login
failure:
  description:
    - V(user) for a path that leads out of the worktree, or a place where something is that this collection did not
      write.
    - V(environment) for a source that is missing, or a copy that failed.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
  returned: failure
  type: str
  sample: "make it in the main tree first (install its dependencies), or mark the entry optional: true"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._worktree_files import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
