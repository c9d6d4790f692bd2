"""Level maps that follow from shapes alone."""
