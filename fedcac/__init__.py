"""fedcac: federated validation of coronary-calcium models.

`fedcac.read_output(folder)` reads what a round wrote. Research software; nothing here is for
clinical use.
"""

from __future__ import annotations

import importlib
from typing import Any

# Their types stand in __init__.pyi: an import here would put every room above this one.
__all__ = ["RoundOutput", "__version__", "read_output"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # pandas loads when a name is used, so that `import fedcac` stays quick.
    if name in {"RoundOutput", "read_output"}:
        return getattr(importlib.import_module("fedcac.output"), name)
    raise AttributeError(f"module 'fedcac' has no attribute '{name}'")
