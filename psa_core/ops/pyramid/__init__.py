"""Mean pooling of keys and values."""
