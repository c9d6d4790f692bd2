"""The packed pyramid: keys and values in their order, level 1 in tiles and pooled rows, quantised for kernels."""
