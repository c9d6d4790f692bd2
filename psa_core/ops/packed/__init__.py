"""The packed pyramid: keys and values of level 1 in their order, quantised, in contiguous tiles that kernels read."""
