# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's door of task_steps.

Private to this collection: may change without notice.
"""

from __future__ import annotations

from ..plugin_utils._door import Door


class ActionModule(Door, idea="_steps", drivers=("docker", "psycopg2")):
    pass
