"""Search over specs with KerasTuner, each candidate within its budget."""
