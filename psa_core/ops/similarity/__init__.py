"""The cosine cap: how far key blocks may be pooled by the likeness of their keys."""
