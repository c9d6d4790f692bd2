"""The benchmark behind ``psa bench``: Pyramid Sparse Attention against dense attention, in one run on one GPU."""
