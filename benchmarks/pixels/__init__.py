"""The pixel study behind ``psa bench --pixels``: whole denoisings of the tiny model, clip by clip against dense."""
