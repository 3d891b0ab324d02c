#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: git_worktree
short_description: Make or remove the git worktrees of a task, with links and copies from the main working trees
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes or removes one worktree in each of several repositories, and in their submodules.
  - All worktrees are checked before the first is changed, and all refusals are reported together. If a worktree fails
    later, the others are still completed, and the result names the failed worktrees (V(partial)). A second run of the
    same call continues from there.
  - Every worktree is marked with its owner, in git's folder for the worktree. A worktree with another owner, or without
    a mark, is neither used nor removed.
  - A worktree gets links and copies of files that it needs and that are not in git, such as installed dependencies. If
    a source is missing, or the place is taken by a file that this collection did not make, the call is refused before
    anything is made. Links and copies are recorded in git's folder for the worktree, so that the removal of the
    worktree does not count them as work. Git ignores them in that worktree only (see the notes), unless it ignores them
    already.
  - If a folder of dependencies is linked (C(node_modules), C(vendor), C(.venv), C(venv)), a guard is placed in git's
    folder for the worktree. The guard is a set of programs named C(composer), C(npm), C(pnpm), C(yarn), C(bun), C(uv)
    and C(pip), and like each C(python) on the E(PATH). They refuse commands that would write through the link, such as
    C(python3 -m pip install), and run the real programs for all other commands. The guard is first on the E(PATH) of
    all commands that this collection runs in the worktree, and of shells with
    O(parallel.worktrees.env_file#module:shell).
  - No work is lost. A worktree with uncommitted, untracked or ignored files, with unpushed commits, or with an
    operation in progress (such as a rebase) is not removed. O(force=true) saves this work and then removes the
    worktree.
  - Concurrent calls for the same repository wait for each other.
  - If the folder of a worktree is inside the repository, it is added to the C(info/exclude) of the repository, and
    removed from there with the worktree.
  - Other modules set C(core.excludesFile) for a worktree, so that git ignores their files there. This setting hides the
    user's own C(core.excludesFile), so the file begins with a copy of the user's file. Each call of this module updates
    the copy from the file of the user who runs the call.
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
      - Two worktrees at the same place, or with the same branch of the same repository, are refused.
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
          - The main working tree of the repository. A bare repository is refused, and so is a subfolder of a working
            tree.
        type: path
        required: true
      path:
        description:
          - The folder of the worktree, absolute or relative to O(worktrees[].repo).
          - A folder that contains files and is not a worktree is refused. So are a symbolic link, and a relative path
            that leads out of the repository through a symbolic link.
          - Required unless O(worktrees[].checkout=false).
        type: str
      branch:
        description:
          - The branch to check out. It is created if it does not exist. A branch that is checked out elsewhere is
            refused.
          - An existing worktree keeps its branch.
        type: str
        required: true
      checkout:
        description:
          - Whether to check out the branch in a worktree. With V(false), only the branch is made, without a worktree,
            and it may be checked out anywhere. A setting in the configuration of the repository names its owner.
          - With O(state=absent) and O(delete_branch=true), such a branch is kept if it is checked out, see RV(notes).
        type: bool
        default: true
      base:
        description:
          - The start of a new branch. The module searches for a branch of this name, then for a branch of C(origin),
            then for any other revision. A branch that only C(origin) has is fetched.
          - It defaults to the commit that is checked out in O(worktrees[].repo).
        type: str
      submodules:
        description:
          - Paths of submodules that get their own worktree and branch, within the worktree. The branch starts at the
            commit of the submodule that is recorded in the worktree.
          - If the main working tree has not fetched the submodule yet, the submodule is fetched.
        type: list
        elements: str
        default: []
      existing_branch:
        description:
          - Whether to check out an existing branch or to refuse it.
        type: str
        choices:
          - use
          - refuse
        default: use
      adopt:
        description:
          - Whether to adopt an existing worktree that another tool made and manages. The module adds its mark. A
            worktree that does not exist is refused.
          - With O(state=absent), the mark is removed, and so are the files that this collection wrote into the
            worktree, except files that were edited by hand. The worktree and its branch are kept. This is also recorded
            in the mark, so it applies even if this option is not set then.
        type: bool
        default: false
      links:
        description:
          - The symbolic links to make. A link that this collection made and that points elsewhere is replaced.
          - For a C(node_modules) with links to the project's own packages (a workspace of npm, pnpm or yarn), the
            module makes a folder whose entries are separate links. The project's own packages are linked within the
            worktree. Every call updates the entries, and keeps entries that were replaced by hand.
          - A C(vendor) of composer, and a virtual environment in which packages of the main working tree are installed,
            cause a warning, since they refer to the code of the main working tree.
        type: list
        elements: dict
        default: []
        suboptions: &entry
          path:
            description:
              - The place in the worktree, relative to O(worktrees[].path). A path that leads out of the worktree, as
                text or through a symbolic link, is refused.
            type: str
            required: true
          source:
            description:
              - The source, absolute or relative to O(worktrees[].repo). It defaults to the same path.
            type: str
          optional:
            description:
              - Whether to skip a source that does not exist. Otherwise a missing source is a failure.
            type: bool
            default: false
      copies:
        description:
          - The files and folders to copy, with times and modes. If the file system supports it (Btrfs, XFS and others),
            the copy shares its blocks with the source, and takes almost no time and no space.
          - An existing copy is not changed, even if its source has changed since. Remove the copy to get a new one.
          - In a copied virtual environment, and in the programs of a copied C(node_modules), the paths of the main
            working tree are replaced with the paths of the worktree. A conda environment is refused.
        type: list
        elements: dict
        default: []
        suboptions: *entry
      installed:
        description:
          - Folders of dependencies that a set-up command makes. If a link that this collection made is in the place of
            such a folder, the link is removed.
        type: list
        elements: str
        default: []
      include:
        description:
          - A file in O(worktrees[].repo) with patterns as in C(.gitignore). Files that match these patterns and that
            git ignores are copied too; git itself evaluates the patterns. The file may be missing.
          - Existing files in the worktree are not changed. Paths in O(worktrees[].links) and O(worktrees[].copies) are
            not copied, nor are files of other worktrees.
          - An empty string turns this off.
        type: str
        default: .worktreeinclude
  owner:
    description:
      - The owner of the worktrees, such as V(shop/fix-login), from the workspace and the task.
    type: str
    required: true
  ports:
    description:
      - The ports of the owner, by name. They are stored in the marks of the worktrees, so that no task of another
        registry uses the same ports. A port that such a task already has is refused.
    type: dict
    default: {}
    version_added: 1.0.0
  state:
    description:
      - With V(present), the worktrees exist.
      - With V(absent), the worktrees are removed. A worktree that does not exist is no error. The branches are kept,
        see O(delete_branch). The folder of a worktree is moved aside at once and deleted in the background.
    type: str
    choices:
      - present
      - absent
    default: present
  force:
    description:
      - Remove a worktree even if work would be lost, the worktree is locked, or git does not list it. Files and commits
        are saved first, under C(refs/worktrees-saved/), see RV(saved).
      - A worktree of another owner is still refused. So is a worktree that contains another repository, since a commit
        cannot save a repository.
    type: bool
    default: false
  delete_branch:
    description:
      - With O(state=absent), delete also the branches that were made for the task. Commits that are on no other branch,
        tag or remote then count as work.
      - All other branches are kept, see RV(notes).
    type: bool
    default: false
  push:
    description:
      - With O(state=absent), push each branch before anything is removed, first the branches of the repositories in the
        given order, then those of the submodules. A worktree whose push fails is not removed.
    type: bool
    default: false
  remote:
    description:
      - The remote to push to.
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
- name: Make a worktree of each repository, on a branch of the task
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

- name: Make a worktree with linked dependencies and a copy of the uploads
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

- name: Check what a removal would lose, without removing anything
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

- name: Push the branches, save uncommitted work, and remove the worktrees
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
  returned: success, with O(state=present)
  type: list
  elements: dict
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
      description: The worktree's folder, absolute; V(none) with O(worktrees[].checkout=false).
      type: str
      sample: /srv/shop/backend/.worktrees/fix-login
    branch:
      description: The branch of the worktree.
      type: str
      sample: fix-login
    checkout:
      description: Whether the branch has a worktree.
      type: bool
      sample: true
    commit:
      description:
        - The commit that is checked out or, in check mode, would be checked out. V(none) if it cannot be determined
          without a fetch.
      type: str
      sample: 5f2c1d9b0e6a4c8d7f3b2a1908e7d6c5b4a39281
    existing_branch:
      description:
        - Whether the branch existed before the task. Such a branch is never deleted.
      type: bool
      sample: false
    taken_up:
      description:
        - Of a branch that existed before its worktree is made, the last commit, as short name, subject and day.
          V(none) for other branches.
      type: str
      sample: 5f2c1d9 Fix the login (2026-03-01)
    submodules:
      description: Paths of the submodules that have their own worktree in it.
      type: list
      elements: str
      sample: []
    adopt:
      description: Whether another tool made the worktree and manages it.
      type: bool
      sample: false
saved:
  description:
    - The work that was saved before a worktree was removed, or before the incomplete worktree of a killed run was
      completed. Empty in check mode.
  returned: success, or if some repositories failed
  type: list
  elements: dict
  contains:
    name:
      description: Name of the repository.
      type: str
      sample: backend
    ref:
      description: The ref that contains the saved work.
      type: str
      sample: refs/worktrees-saved/fix-login/20260101T120000Z
    restore:
      description: The command that restores the saved work.
      type: str
      sample: git -C /srv/shop/backend worktree add --detach /srv/again refs/worktrees-saved/fix-login/20260101T120000Z
pushed:
  description: The branches that were pushed. Empty in check mode.
  returned: success, or if some repositories failed, with O(state=absent)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the repository.
      type: str
      sample: backend
    branch:
      description: The branch that was pushed.
      type: str
      sample: fix-login
    remote:
      description: The remote that it was pushed to.
      type: str
      sample: origin
left:
  description: The worktrees that were kept, since another tool made them.
  returned: success, with O(state=absent)
  type: list
  elements: str
  sample: []
branches:
  description: The branches that were kept.
  returned: success, with O(state=absent)
  type: list
  elements: str
  sample:
    - fix-login
trash:
  description:
    - Folders in the trash of a repository that this user cannot remove, because another user owns files in them, or
      because a file system is mounted there.
  returned: success, with O(state=absent)
  type: list
  elements: str
  sample: []
notes:
  description:
    - What was not deleted, with the reason. These are branches that were kept despite O(delete_branch=true), and
      worktrees and repositories that did not exist any more, perhaps because they were moved.
  returned: success, with O(state=absent)
  type: list
  elements: str
  sample: []
files:
  description: The files that would be lost, by name of the repository.
  returned: if a removal is refused because work would be lost
  type: dict
  sample:
    backend:
      - src/login.py
commits:
  description: The commits that would be lost, by name of the repository.
  returned: if a removal is refused because work would be lost
  type: dict
  sample:
    backend:
      - 5f2c1d9 Mend the login
done:
  description: The repositories that succeeded.
  returned: if some repositories failed
  type: list
  elements: str
  sample:
    - backend
failed_members:
  description: The repositories that failed, and the submodules whose push failed.
  returned: if some repositories failed
  type: list
  elements: str
  sample:
    - app
failed_pushes:
  description: The repositories and submodules whose push failed.
  returned: if some repositories failed, with O(state=absent)
  type: list
  elements: str
  sample:
    - app
command:
  description: The program that failed, with its arguments.
  returned: if git failed in a single repository
  type: list
  elements: str
  sample: [git, -C, /srv/shop/backend, fetch]
code:
  description: Exit code of the program; the negative number of the signal if a signal ended it.
  returned: if git failed in a single repository
  type: int
  sample: 128
failure:
  description:
    - V(user) if the call is refused, before anything is changed. The reason is a wrong path, branch or base, a place or
      a branch that is already used, a worktree of another owner, work that would be lost, or a link or copy that leads
      out of the worktree or to a place with a file that this collection did not write.
    - V(environment) if an operation of git or of the file system failed, it cannot be determined what would be lost, or
      the source of a link or copy is missing.
    - V(partial) if some repositories succeeded and at least one failed.
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
