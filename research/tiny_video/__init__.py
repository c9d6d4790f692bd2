"""The tiny video model's making: the clips that it learns from, its training, and what reads a clip again."""
