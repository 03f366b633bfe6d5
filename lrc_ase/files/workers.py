"""Worker processes that end with their parent.

A module without heavy imports: a worker that starts imports it first, and watches its parent while it imports the rest.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """End this worker process when its parent ends, even if SIGKILL leaves the parent no time to stop it."""
    parent = parent_process()
    if parent is None:  # not a worker
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
