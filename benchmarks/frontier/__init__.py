"""Error against time of the op, behind ``psa bench --frontier``: calibrated attention, fixed recipes and rivals."""
