"""Which reconstruction kernels are sharp: lung and bone kernels raise noise and edges over 130 HU.

The lists follow the vendors' naming habits, not a normative table, and are deliberately short: a
name that is not listed counts as soft.
"""

from __future__ import annotations

import re

__all__ = ["is_sharp_kernel"]

# Philips spells kernels as letters (L lung, D sharp, E edge, Y.. high resolution, CD stents).
_SHARP_NAMES = frozenset({"D", "E", "L", "EC", "YD", "YE", "YC", "CD", "XCD"})

# GE (LUNG, HD LUNG, BONEPLUS, EDGE, ULTRA), United Imaging (B_SHARP_C, LUNG_SHARP_A), Neusoft (Lung
# Enh) and Philips's iterative reconstructions (SharpPlus) spell them as words.
_SHARP_WORDS = re.compile(r"LUNG|BONE|EDGE|SHARP|\bULTRA\b", re.IGNORECASE)

# Siemens: one to three letters, a two-digit sharpness, as in B30f, I70f\3, Br59d, Bl57f, D60f (two
# energies), B19f PET. From 50 on a kernel is 'medium sharp' or sharper; calcium scoring uses 30 to
# 36.
_SIEMENS = re.compile(r"^(?:[BDHIJQSTU]|[BHIQSTU][a-z])(\d{2})[a-z]?(?: .*)?$")
_SIEMENS_SHARP_FROM = 50

# Canon: FC plus two digits; 30-39 bone, 50-59 and 80-89 lung and high resolution.
_CANON = re.compile(r"^FC(\d{2})")
_CANON_SHARP_TENS = frozenset({3, 5, 8})


def is_sharp_kernel(kernel: str) -> bool:
    """Say whether a ConvolutionKernel (0018,1210), first value, is a lung, bone or edge kernel."""
    name = kernel.strip()
    if name.upper() in _SHARP_NAMES or _SHARP_WORDS.search(name):
        return True
    siemens = _SIEMENS.match(name)
    if siemens:
        return int(siemens.group(1)) >= _SIEMENS_SHARP_FROM
    canon = _CANON.match(name.upper())
    return canon is not None and int(canon.group(1)) // 10 in _CANON_SHARP_TENS
