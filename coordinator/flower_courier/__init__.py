"""The coordinator's courier over Flower.

A journal that the study engine writes and reads, and processes of their own that move what lies
in it.
"""

from __future__ import annotations
