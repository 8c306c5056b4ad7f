"""Pretrained weights: what exists, readers of each public format, strict assignment."""
