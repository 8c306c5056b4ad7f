"""The report of a search: one HTML page, pictures, CSV and TensorBoard's HParams."""
