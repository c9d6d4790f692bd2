"""Models that the package brings, or whose files it reads. Knows no attention."""
