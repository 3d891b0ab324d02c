# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments of a module, held against its argument spec.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ._errors import UserError
from ._options import meant


def validated(module: str, spec: t.Mapping[str, t.Any], given: t.Mapping[str, t.Any]) -> t.Any:
    """The arguments with defaults and types, as Ansible's validator returns them.

    :arg module: its name within this collection.
    :raises UserError: the module does not take them.
    """
    checked = ArgumentSpecValidator(dict(spec)).validate(dict(given))
    if checked.error_messages:
        unknown = {name if isinstance(name, str) else ".".join(name) for name in checked.unsupported_parameters}
        # Ansible says which these are without saying what they are.
        messages = [text for text in checked.error_messages if ". Supported parameters include: " not in text]
        messages += [f"there is no {name}{meant(name, _names(spec))}" for name in sorted(unknown)]
        raise UserError(
            f"module {module} cannot take these arguments: {'; '.join(messages)}",
            hint=f"what it takes: ansible-doc parallel.worktrees.{module}",
        )
    return checked


def _names(spec: t.Mapping[str, t.Any], where: str = "") -> t.Iterator[str]:
    """Every option, those within others by their path."""
    for name, about in spec.items():
        yield where + name
        yield from _names(about.get("options") or {}, f"{where}{name}.")
