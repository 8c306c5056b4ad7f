"""Evaluation: metrics, testing crops, plots, and pictures of what a network sees."""
