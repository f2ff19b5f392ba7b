"""The callback to which long operations report their progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

ProgressCallback: TypeAlias = Callable[[str, int, int | None], None]
"""Called as `progress(activity, bytes_done, bytes_total)`; the total is None if it is not known."""
