# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many git processes a task takes: git itself writes down each that is started (GIT_TRACE2_EVENT)."""

from __future__ import annotations

import collections
import json
import re

import pytest
from integration import workspaces

PLACE = re.compile(r"(?<= )(-C|-c|--file) \S+ |--literal-pathspecs ")
LIMITS = {"provision": 30, "status": 5, "teardown": 15}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """Four repositories with origins, the first with a submodule, in which no task was made yet."""
    with workspaces.bautista(tmp_path_factory.mktemp("processes")) as made:
        yield made


def started(space, verb, task):
    """The git commands that a run starts, with how often; what git starts for itself is not counted."""
    trace = space.state / f"{verb}.trace"
    space.environment["GIT_TRACE2_EVENT"] = str(trace)
    space.run(verb, task=task).must()
    events = map(json.loads, trace.read_text().splitlines())
    lines = [" ".join(event["argv"]) for event in events if event["event"] == "start" and "/" not in event["sid"]]
    return collections.Counter(" ".join(PLACE.sub("", line).split()[:3]) for line in lines)


@pytest.mark.parametrize("verb", LIMITS)
def test_one_task_over_four_repositories(space, verb):
    """The first task of all, whose provision also sets what all tasks need."""
    found = started(space, verb, "first")
    told = "\n".join(f"{number:4} {command}" for command, number in found.most_common())
    assert 0 < found.total() <= LIMITS[verb], f"{verb} starts {found.total()} git processes:\n{told}"
