"""MLflow: runs, the model registry, and which model holds which alias."""
