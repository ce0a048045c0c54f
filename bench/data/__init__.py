"""Data sets; the names of this package are those of `bench.data.built_in`.

They are imported when one of them is first used, since they need torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.data.built_in import *  # noqa: F403

if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> object:
        import bench.data.built_in  # noqa: F401

        # The attribute of the package is set only after the import has ended.
        return getattr(sys.modules["bench.data.built_in"], name)
