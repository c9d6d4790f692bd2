"""``psa ask``: a question about a video, answered with dense attention and with PSA."""
