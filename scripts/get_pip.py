# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the pip that Python brings along: stands in for the script that ansible-test would download."""

from __future__ import annotations

import ensurepip
import pathlib
import runpy
import sys
import sysconfig

# Debian keeps the wheels elsewhere, and says so where Python was configured.
bundled = pathlib.Path(ensurepip.__file__).with_name("_bundled")
[wheel] = pathlib.Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or bundled).glob("pip-*.whl")
sys.path.insert(0, str(wheel))
sys.argv[1:] = ["install", "--quiet", "--no-index", "--find-links", str(wheel.parent), "pip"]
runpy.run_module("pip", run_name="__main__")
