"""The packed pyramid: keys and values of level 1 in their order, quantised, as kernels read them in contiguous tiles."""
