"""Attention of query blocks over the pyramid rows that a level map keeps."""
