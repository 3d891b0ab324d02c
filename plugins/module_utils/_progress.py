# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far something long is, told to whoever waits for it.

Private to this collection: may change without notice.

The controller's door lets a person see it. A module that was sent to another machine has nobody to tell.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t

SECONDS = 5.0
"""How often something is told; what is done sooner is not told of."""

_tell: t.Callable[[str], None] | None = None


def tell_to(listener: t.Callable[[str], None] | None) -> None:
    """Say whom everything is told from now on; None for nobody."""
    global _tell  # noqa: PLW0603 - of a process, as are the operations that it carries out
    _tell = listener


@contextlib.contextmanager
def told(how_far: t.Callable[[], str]) -> t.Iterator[None]:
    """Tell how far it is, again and again, while something is done.

    :arg how_far: called in a thread of its own; what it raises costs that one line.
    """
    tell, is_done = _tell, threading.Event()
    if tell is None:
        yield
        return

    def watch() -> None:
        before = None
        while not is_done.wait(SECONDS):
            with contextlib.suppress(Exception):
                line = how_far()
                if line != before:
                    tell(line)
                before = line

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_done.set()
        watcher.join()
