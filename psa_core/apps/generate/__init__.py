"""``psa generate``: videos from prompts with a diffusers pipeline, with PSA or with dense attention."""
