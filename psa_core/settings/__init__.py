"""What a user may set: read, checked, and the same everywhere. Knows no tensor operation."""
