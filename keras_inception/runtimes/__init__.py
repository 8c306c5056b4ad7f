"""One interface to every saved format: pixels in, scores out."""
