"""The study behind ``psa bench --study``: settings against each other at equal density, in a trained model."""
