"""How the models that this package brings were made; run from a checkout."""
