"""The op beyond ``psa bench``: by length, stage and radial mask, its first calls, its memory, and FlexAttention."""
