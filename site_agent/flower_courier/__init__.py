"""A site's courier over Flower: carries bytes between a SuperNode and the spool, and no more.

Runs in a process, an OS user and an environment of its own, which hold Flower and neither
patients, keys of the agent nor the rest of this project: `pack` writes all of it into one file.
"""

from __future__ import annotations
