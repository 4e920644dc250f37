"""Every parser, by the module that registers it."""

from __future__ import annotations

from types import ModuleType

from fuzz import forms, images, joining, journals, links, messages, models, plans, tables

__all__ = ["ROOMS"]

ROOMS: tuple[ModuleType, ...] = (
    messages,
    plans,
    tables,
    journals,
    joining,
    images,
    models,
    links,
    forms,
)
