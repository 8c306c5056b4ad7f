"""KerasTuner's oracles, tuner and service, made to survive failures."""
