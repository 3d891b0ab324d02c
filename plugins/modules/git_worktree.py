#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: git_worktree
short_description: Make or remove the git worktrees of a task, with what they need of the main working trees
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes or removes one worktree in each of several repositories, and in submodules of these.
  - All are looked at before the first is touched, and every refusal is told at once. If one fails all the same, the
    others are done, the result says which (V(partial)), and the same call run again goes on where this one stopped.
  - Every worktree is marked with its owner, in git's own folder for it. One that has another owner, or none, is neither
    used nor removed.
  - A worktree gets links and copies of what it needs and git does not have, such as installed dependencies. A source
    that is missing is refused before anything is made, and so is a place that has what somebody else put there. What
    is placed is noted in git's folder for the worktree, so that its removal can tell it from work, and kept out of git
    in that worktree alone (see the notes) where git does not ignore it.
  - Where a folder of dependencies is linked (C(node_modules), C(vendor), C(.venv), C(venv)), a guard is put into git's
    folder for the worktree, as programs called C(composer), C(npm), C(pnpm), C(yarn), C(bun), C(uv) and C(pip), and
    like each C(python) that is on the PATH. First on the PATH, they refuse what would write through the link, such as
    C(python3 -m pip install), and run the real ones for everything else. They are first for whatever this collection
    runs in the worktree, and in shells by O(parallel.worktrees.env_file#module:shell).
  - No work is lost. Uncommitted, untracked and ignored files, unpushed commits and operations under way (a rebase, say)
    keep a worktree from being removed, and O(force=true) saves them first.
  - Calls that run at once for the same repository wait for each other.
  - A folder inside the repository is added to its C(info/exclude), and taken out of it when the worktree goes.
  - Where other modules keep their files out of git in a worktree alone, they set C(core.excludesFile) for it, which
    hides the one that its user has for all repositories. The file there begins with the text of the user's, and each
    call of this module brings that up to date, as the user has it who runs the call.
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
      - Two at the same place, or with one branch of one repository, are refused.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the repository in results and messages.
        type: str
        required: true
      repo:
        description:
          - The main working tree of the repository. A bare repository and a folder inside of one are refused.
        type: path
        required: true
      path:
        description:
          - Folder of the worktree, absolute or from O(worktrees[].repo).
          - A folder that has files and is no worktree is refused. So is a symbolic link, and a relative path that one
            leads out of the repository.
          - It is required unless O(worktrees[].checkout=false).
        type: str
      branch:
        description:
          - The branch to check out, made where it is missing. One that is checked out elsewhere is refused.
          - A worktree that is there already keeps the branch it is on.
        type: str
        required: true
      checkout:
        description:
          - Whether to check the branch out, in a worktree. Otherwise there is the branch alone, made in nobody's tree,
            and it may be checked out anywhere. A line in the repository's configuration names its owner.
          - With O(state=absent) and O(delete_branch=true), such a branch stays where it is checked out, see RV(notes).
        type: bool
        default: true
      base:
        description:
          - Where a new branch starts. A branch, then one of C(origin), then any other revision, is looked for; what
            only C(origin) has is fetched.
          - It defaults to the commit that O(worktrees[].repo) is at.
        type: str
      submodules:
        description:
          - Paths of submodules that get a worktree and a branch of their own, within the worktree. The branch starts at
            the commit that the worktree names.
          - A submodule that the main working tree has not fetched yet is fetched.
        type: list
        elements: str
        default: []
      existing_branch:
        description:
          - Whether to check out a branch that exists, or to refuse it.
        type: str
        choices:
          - use
          - refuse
        default: use
      adopt:
        description:
          - The worktree is there, made by another tool, which keeps it. It is marked, and refused if it is not there.
          - With O(state=absent), what this collection wrote into it is removed, but for what somebody edited, and so is
            the mark. The worktree and its branch stay. The mark says so, too, where this is not given.
        type: bool
        default: false
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
              - Where it comes from, absolute or from O(worktrees[].repo). It defaults to the same path.
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
          - A file in O(worktrees[].repo) with patterns as in C(.gitignore). What it matches is copied too, if git
            ignores it; git itself decides both. It may well not exist.
          - A place where something is stays as it is. Nothing is copied that O(worktrees[].links) or
            O(worktrees[].copies) name, nor of other worktrees.
          - Empty, there is no such file.
        type: str
        default: .worktreeinclude
  owner:
    description:
      - The owner of the worktrees, as in V(shop/fix-login), the workspace and the task.
    type: str
    required: true
  ports:
    description:
      - The ports of the owner, by name. The marks of the worktrees name them, so that no task of another registry takes
        them as well. One that such a task has is refused.
    type: dict
    default: {}
    version_added: 1.0.0
  state:
    description:
      - With V(present), the worktrees are there.
      - With V(absent), they are not. One that is away already is fine. Their branches stay, see O(delete_branch). A
        folder is moved aside at once and deleted in the background.
    type: str
    choices:
      - present
      - absent
    default: present
  force:
    description:
      - Remove a worktree even if work would be lost, it is locked, or git does not know it. Files and commits are saved
        first, under C(refs/worktrees-saved/), see RV(saved).
      - A worktree of another owner is refused all the same. So is one with a repository of its own in it, since no
        commit can hold that.
    type: bool
    default: false
  delete_branch:
    description:
      - With O(state=absent), delete the branches too that were made for the task. Commits that are on no other branch,
        tag or remote then count as work.
      - Any other branch stays, see RV(notes).
    type: bool
    default: false
  push:
    description:
      - With O(state=absent), push each branch before anything is removed, first of the repositories in the order given,
        then of the submodules. A worktree whose push fails stays.
    type: bool
    default: false
  remote:
    description:
      - Where to push to.
    type: str
    default: origin
  disposable:
    description:
      - Shell patterns for names of files and folders. If git ignores such a file or folder, it never counts as work.
      - A clone in such a folder still counts as work if its remotes lack one of its commits, or if it has a file that
        is neither pushed nor ignored.
    type: list
    elements: str
    default:
      - node_modules
      - __pycache__
      - "*.pyc"
      - .venv
      - .pytest_cache
      - .mypy_cache
      - .ruff_cache
      - .hypothesis
      - .tox
      - .gradle
      - .next
      - .turbo
      - .husky/_
requirements:
  - git >= 2.36
seealso:
  - module: parallel.worktrees.env_file
  - module: parallel.worktrees.worktree_setup
  - module: ansible.builtin.git
"""

EXAMPLES = r"""
- name: A worktree of each repository, on a branch of the task
  parallel.worktrees.git_worktree:
    owner: shop/fix-login
    worktrees:
      - name: backend
        repo: "{{ workspace_root }}/backend"
        path: .worktrees/fix-login
        branch: fix-login
        base: main
      - name: app
        repo: "{{ workspace_root }}/app"
        path: .worktrees/fix-login
        branch: fix-login
  register: made

- name: A worktree that shares the dependencies of the main working tree, and has a copy of the uploads
  parallel.worktrees.git_worktree:
    owner: shop/fix-login
    worktrees:
      - name: backend
        repo: "{{ workspace_root }}/backend"
        path: .worktrees/fix-login
        branch: fix-login
        links:
          - path: vendor
        copies:
          - path: storage/uploads
            optional: true
          - path: config/local.ini
            source: config/local.ini.example

- name: See what a removal would lose, without removing anything
  parallel.worktrees.git_worktree:
    owner: shop/fix-login
    worktrees:
      - name: backend
        repo: "{{ workspace_root }}/backend"
        path: .worktrees/fix-login
        branch: fix-login
    state: absent
  check_mode: true
  register: verdict
  failed_when: verdict.failure | default('user') != 'user'

- name: Push and remove them, and save what was not committed
  parallel.worktrees.git_worktree:
    owner: shop/fix-login
    worktrees:
      - name: backend
        repo: "{{ workspace_root }}/backend"
        path: .worktrees/fix-login
        branch: fix-login
      - name: app
        repo: "{{ workspace_root }}/app"
        path: .worktrees/fix-login
        branch: fix-login
    state: absent
    push: true
    force: true
    delete_branch: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - make worktree /srv/shop/backend/.worktrees/fix-login on branch fix-login
    - link /srv/shop/backend/.worktrees/fix-login/vendor from /srv/shop/backend/vendor
    - copy /srv/shop/backend/.worktrees/fix-login/uploads from /srv/shop/backend/uploads (full copy)
    - guard the shared dependencies of /srv/shop/backend/.worktrees/fix-login
worktrees:
  description: The worktrees, in the order given.
  returned: success and O(state=present)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the repository.
      type: str
      sample: backend
    repo:
      description: Its main working tree.
      type: str
      sample: /srv/shop/backend
    path:
      description: The worktree's folder, absolute; V(none) with O(worktrees[].checkout=false).
      type: str
      sample: /srv/shop/backend/.worktrees/fix-login
    branch:
      description: The branch it is on.
      type: str
      sample: fix-login
    checkout:
      description: Whether there is a worktree.
      type: bool
      sample: true
    commit:
      description:
        - The commit it is at or, in check mode, would be at. V(none) where only a fetch could tell.
      type: str
      sample: 5f2c1d9b0e6a4c8d7f3b2a1908e7d6c5b4a39281
    existing_branch:
      description:
        - Whether the branch was there before the task. Such a branch is never deleted.
      type: bool
      sample: false
    taken_up:
      description:
        - Of a branch that existed before its worktree is made, the last commit, as short name, subject and day.
          V(none) for other branches.
      type: str
      sample: 5f2c1d9 Fix the login (2026-03-01)
    submodules:
      description: Paths of the submodules that have a worktree of their own in it.
      type: list
      elements: str
      sample: []
    adopt:
      description: Whether another tool made it, which keeps it.
      type: bool
      sample: false
saved:
  description:
    - The work that was saved before a worktree was removed, or before one that a killed run had begun was completed.
      Empty in check mode.
  returned: success, and when some failed
  type: list
  elements: dict
  contains:
    name:
      description: Of which repository.
      type: str
      sample: backend
    ref:
      description: The ref that keeps it.
      type: str
      sample: refs/worktrees-saved/fix-login/20260101T120000Z
    restore:
      description: The command that brings it back.
      type: str
      sample: git -C /srv/shop/backend worktree add --detach /srv/again refs/worktrees-saved/fix-login/20260101T120000Z
pushed:
  description: What was pushed; empty in check mode.
  returned: with O(state=absent), on success and when some failed
  type: list
  elements: dict
  contains:
    name:
      description: Of which repository.
      type: str
      sample: backend
    branch:
      description: Which branch.
      type: str
      sample: fix-login
    remote:
      description: Where to.
      type: str
      sample: origin
left:
  description: The worktrees that stay, since another tool made them.
  returned: success and O(state=absent)
  type: list
  elements: str
  sample: []
branches:
  description: The branches that stay.
  returned: success and O(state=absent)
  type: list
  elements: str
  sample:
    - fix-login
trash:
  description:
    - Folders in the trash of a repository that this user cannot remove, since another user owns files in them, or
      something is mounted there.
  returned: success and O(state=absent)
  type: list
  elements: str
  sample: []
notes:
  description:
    - What was not deleted, and why. Branches that stay although O(delete_branch=true), and worktrees and repositories
      that were gone before, maybe to another place.
  returned: success and O(state=absent)
  type: list
  elements: str
  sample: []
files:
  description: The files that would be lost, by name of the repository.
  returned: when a removal is refused because work would be lost
  type: dict
  sample:
    backend:
      - src/login.py
commits:
  description: The commits that would be lost, by name of the repository.
  returned: when a removal is refused because work would be lost
  type: dict
  sample:
    backend:
      - 5f2c1d9 Mend the login
done:
  description: The repositories that were done.
  returned: when some failed
  type: list
  elements: str
  sample:
    - backend
failed_members:
  description: The repositories that were not, and the submodules whose push failed.
  returned: when some failed
  type: list
  elements: str
  sample:
    - app
failed_pushes:
  description: The repositories and submodules whose push failed.
  returned: when some failed with O(state=absent)
  type: list
  elements: str
  sample:
    - app
command:
  description: The program that failed, with its arguments.
  returned: when git failed in a single repository
  type: list
  elements: str
  sample: [git, -C, /srv/shop/backend, fetch]
code:
  description: What it ended with; negative for the signal that ended it.
  returned: when git failed in a single repository
  type: int
  sample: 128
failure:
  description:
    - V(user) for what is refused, before anything is touched. That is a wrong path, branch or base, a place or a branch
      that is taken, a worktree of somebody else, work that would be lost, or a link or copy that leads out of the
      worktree or to a place where something is that this collection did not write.
    - V(environment) if git or the file system did not do its part, cannot tell what would be lost, or the source of a
      link or copy is missing.
    - V(partial) if some repositories are done and at least one is not.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "commit and push it, or add -e force=true: it is then saved under refs/worktrees-saved first"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._worktrees import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
