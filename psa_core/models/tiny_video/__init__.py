"""A trained video model small enough to ship: Wan's architecture, clips of moving shapes, a language of 30 words."""
