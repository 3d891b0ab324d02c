# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How the modules that write into worktrees keep it out of git, which is what ``_exclude`` does."""

    DOCUMENTATION = r"""
options: {}
notes:
  - A C(core.excludesFile) that is set only for the worktree, and is in git's folder for it, makes git ignore the paths.
    This file begins with a copy of the user's own C(core.excludesFile), since git does not read the user's file in this
    worktree any more. M(parallel.worktrees.git_worktree) updates the copy.
  - The C(.gitignore) of the project and the C(info/exclude) of the repository have priority over this file. A path that
    they include again (C(!AGENTS.md)) is not ignored.
  - For this purpose, C(extensions.worktreeConfig) is set in the repository. It is not unset later, since other tools
    may rely on it. It has no effect if no worktree has its own settings.
  - In a folder that is not a linked worktree, the C(info/exclude) of its repository makes git ignore the paths.
"""
