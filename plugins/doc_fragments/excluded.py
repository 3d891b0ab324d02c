# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How the modules that write into worktrees keep it out of git, which is what ``_exclude`` does."""

    DOCUMENTATION = r"""
options: {}
notes:
  - Paths are kept out of git in one worktree by a C(core.excludesFile) that is set for it alone, and lies in git's
    folder for it. It begins with the text of the one that its user has for all repositories, since git would no longer
    read that there; M(parallel.worktrees.git_worktree) brings it up to date.
  - A project's own C(.gitignore) and the repository's C(info/exclude) outrank it. What they say is to be seen
    (C(!AGENTS.md)) is seen.
  - For that, C(extensions.worktreeConfig) is set in the repository. It stays set, as nobody can tell who else relies on
    it by then; where no worktree has settings of its own, it means nothing.
  - In a folder that is no linked worktree they are kept out of git through its repository's C(info/exclude).
"""
