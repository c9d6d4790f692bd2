"""Level maps from importance."""
