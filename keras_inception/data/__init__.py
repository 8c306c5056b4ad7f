"""Data sets of images and labels, and their streams of batches. No model."""
