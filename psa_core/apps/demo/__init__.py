"""``psa demo``: the same video twice, with dense attention and with PSA, from a tiny model on a CPU."""
