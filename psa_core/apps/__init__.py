"""The ``psa`` command."""
