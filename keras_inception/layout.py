"""Names of the files in a run's folder. Standard library only."""

MODEL_FILE = "model.keras"
LABELS_FILE = "labels.txt"
METRICS_FILE = "metrics.json"
SPEC_FILE = "spec.json"
RECIPE_FILE = "recipe.json"
SNAPSHOT_FOLDER = "snapshots"
