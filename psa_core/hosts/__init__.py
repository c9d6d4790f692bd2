"""Hosts: what owns a model. Each module patches one and restores it."""
