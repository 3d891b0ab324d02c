# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a person called a run, so that the commands which its texts suggest are written the same way.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import collections.abc as c
import os
import re
import shlex
import typing as t

from ansible import constants as C
from ansible.parsing.splitter import split_args

VERB = re.compile(r"ansible-playbook parallel\.worktrees\.(\w+)")


class Typed:
    """How a person called this run: the commands that texts suggest are written the same way.

    :ivar playbook: what was typed for the playbook.
    :ivar options: the inventory and the workspace, as options.
    """

    def __init__(self, arguments: c.Mapping[str, t.Any]) -> None:
        self.playbook = next(iter(arguments.get("args") or ()), "")
        inventories = list(arguments.get("inventory") or ())
        if inventories == C.DEFAULT_HOST_LIST:
            inventories = []
        words = [("-i", near(place)) for place in inventories]
        for text in arguments.get("extra_vars") or ():
            if text.startswith("@"):
                words.append(("-e", f"@{near(text[1:])}"))
            elif not text.startswith(("{", "[")):
                # Nothing else is repeated: it is this run's alone, or may be a secret.
                words += [("-e", word) for word in split_args(text) if word.startswith("workspace_")]
        self.options = "".join(f" {option} {shlex.quote(word)}" for option, word in words)

    def commands(self, text: str) -> str:
        """The text with its commands as this person types them."""
        return VERB.sub(lambda found: f"ansible-playbook {self._verb(found[1])}{self.options}", text)

    def _verb(self, verb: str) -> str:
        folder, file = os.path.split(self.playbook)
        path = os.path.join(folder, f"{verb}.yml")
        return (
            shlex.quote(near(path)) if file.endswith(".yml") and os.path.exists(path) else f"parallel.worktrees.{verb}"
        )


def near(path: str) -> str:
    """A path as one types it: Ansible has made it absolute."""
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return path if relative.startswith("..") else relative
