"""Pretrained weights: manifest, readers of each public format, strict assignment."""
