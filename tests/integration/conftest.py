# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of more than one module of the collection begin with."""

from __future__ import annotations

import typing as t

import pytest
from integration.repos import Sample, make_template

if t.TYPE_CHECKING:
    import pathlib


@pytest.fixture
def sample(tmp_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Sample repositories of the test's own, copied from those that were made once."""
    template = tmp_path_factory.getbasetemp() / "sample-repositories"
    if not template.exists():
        template.mkdir()
        make_template(template)
    return Sample(tmp_path / "sample", template)
