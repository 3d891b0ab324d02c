# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that start, but not with their data in another folder, so that they cannot be prepared.

Private to this collection: may change without notice.

Such an image is known after one attempt. A container is made of it as it is, and does the image's own first start.
"""

from __future__ import annotations

import os

from . import _files
from ._errors import EnvironmentFailure
from ._state import state_folder


class CannotBePrepared(EnvironmentFailure):
    """The image did not take the data folder that was asked of it; it may be broken, too."""


def is_known(image_id: str) -> bool:
    return os.path.exists(_note(image_id))


def remember(image_id: str) -> None:
    path = _note(image_id)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    _files.write(path, b"", mode=0o600)


def warning(image: str) -> str:
    """What a person is told when a container is made of such an image."""
    return (
        f"image {image} cannot have its data in another folder, so it cannot be prepared: each container of it does "
        "the image's own first start, and builds golden databases itself, which takes seconds more"
    )


def _note(image_id: str) -> str:
    return os.path.join(state_folder(), "containers", ".plain", image_id.replace(":", "-"))
