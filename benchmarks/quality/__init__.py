"""The quality bench behind ``psa bench --quality``: every preset against dense attention, in the tiny trained model."""
