"""``psa doctor``: what this machine has, whether the kernels run on it, and how fast they are on it."""
