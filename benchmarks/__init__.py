"""What engineers measure from a checkout: the op in depth, targets, whole models, the quality of presets, settings.

What users measure on their own card, and what this is built on, is ``psa_core.apps.bench``.
"""
