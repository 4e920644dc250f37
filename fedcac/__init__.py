"""fedcac: federated validation of coronary-calcium models.

Research software. Nothing here is for clinical use.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
