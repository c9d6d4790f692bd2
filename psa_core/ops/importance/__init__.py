"""Importance of key blocks to query blocks."""
