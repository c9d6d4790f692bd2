"""What a run did: counts, time, quality, and pictures of them."""
