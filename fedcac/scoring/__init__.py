"""Agatston, volume and mass scores of a calcium mask."""
