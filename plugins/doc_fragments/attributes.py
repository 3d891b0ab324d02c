# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What the modules of this collection promise; each says with C(support) how far it keeps it."""

    # With V(full) support a promise holds always, with V(partial) only as the module's details say, with V(none) never.
    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/parallel.worktrees.worktrees) in C(module_defaults) to set defaults for all modules of this
        collection.
    support: full
    membership:
      - parallel.worktrees.worktrees
  check_mode:
    description:
      - Can run in C(check_mode) and return what the real run would return, without changing anything.
      - With C(full) support, it also refuses everything that the real run would refuse. With C(partial) support, the
        details say what cannot be predicted.
  diff_mode:
    description:
      - Returns what has changed (or would change, in C(check_mode)) in C(diff) mode. Secrets are masked.
      - With C(none) support, the module has no differences on the machine to show.
  idempotent:
    description:
      - A second run of the same call changes nothing if nothing else has changed in between. In C(check_mode) it then
        predicts no change.
      - With C(full) support, this includes a run that was killed at any point. The same call continues where the killed
        run stopped.
"""
