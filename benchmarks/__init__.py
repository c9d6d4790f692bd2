"""What engineers measure from a checkout: targets, whole models, the quality of presets, settings against each other.

What users measure on their own card, and what this is built on, is ``psa_core.apps.bench``.
"""
