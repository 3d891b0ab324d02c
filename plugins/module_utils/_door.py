# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What both doors of a module do: call its operation, and turn an expected failure into a result.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from ._errors import WorktreesError, disk_expected

Params = dict[str, t.Any]
Result = dict[str, t.Any]


def filled(spec: t.Mapping[str, t.Any], given: t.Mapping[str, t.Any]) -> Params:
    """The parameters of an operation: what is given of those that its argument spec has, and its defaults."""
    return {key: given.get(key, about.get("default")) for key, about in spec.items()}


def together(*results: Result) -> Result:
    """What several operations did, one after another, as one: no facts."""
    return {
        "changed": any(result["changed"] for result in results),
        "actions": [action for result in results for action in result["actions"]],
        "diff": [difference for result in results for difference in result["diff"]],
        **warned(*(line for result in results for line in result.get("warnings", ()))),
    }


def warned(*lines: str) -> Result:
    """Lines for the user that no action has led to, as part of a result."""
    return {"warnings": list(dict.fromkeys(lines))} if lines else {}


class Operation(t.Protocol):
    """The work of one module.

    It takes validated parameters and returns the module's result. ``changed`` and ``diff`` (a list
    of ``before``/``after`` pairs, secrets masked) are always there. In check mode it touches nothing
    and returns what the real run would.
    """

    def __call__(self, params: Params, *, check: bool) -> Result: ...


def answer(
    operation: Operation, params: Params, *, check: bool, diff: bool, warn: t.Callable[[str], None] | None = None
) -> Result:
    """Carry out an operation for a door.

    :arg warn: takes the warnings, which a module may not return by itself.
    """
    try:
        with disk_expected():
            result = operation(params, check=check)
    except WorktreesError as error:
        result = error.as_result()
    if not diff:
        result.pop("diff", None)
    warnings = result.pop("warnings", None) or []
    if warn:
        for line in warnings:
            warn(line)
    elif warnings:
        result["warnings"] = warnings
    return result
