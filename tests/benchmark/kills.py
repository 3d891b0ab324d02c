# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of killed runs at their full number: forty provisions, and every step of git's part.

Run by ``scripts/benchmark kills``. Arguments go to pytest; PARALLEL_WORKTREES_SEED repeats a run's moments.
"""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

INTEGRATION = pathlib.Path(__file__).resolve().parent.parent / "integration"

if __name__ == "__main__":
    os.environ.setdefault("PARALLEL_WORKTREES_KILLS", "40")
    names = ("test_interrupted.py", "test_git_worktree_killed.py")
    sys.exit(pytest.main(["-q", *(str(INTEGRATION / name) for name in names), *sys.argv[1:]]))
