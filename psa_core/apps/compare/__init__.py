"""``psa compare``: the same prompts and seeds with dense attention and with several presets."""
