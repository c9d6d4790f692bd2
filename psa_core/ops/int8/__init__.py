"""Numbers rounded to INT8, those that share a scale by their largest magnitude."""
