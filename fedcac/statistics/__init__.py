"""Federated estimators: one file each, both halves in it."""
