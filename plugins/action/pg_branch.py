# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's door of pg_branch.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import importlib

from ..module_utils._branches import ARGUMENT_SPEC, operation
from ..plugin_utils._door import Door

with contextlib.suppress(ImportError):
    importlib.import_module("psycopg2")  # slow, so once in Ansible's main process instead of in every fork


class ActionModule(Door):
    operation = staticmethod(operation)
    argument_spec = ARGUMENT_SPEC
