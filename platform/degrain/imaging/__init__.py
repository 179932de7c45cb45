"""Photos and numbers: no Ray, no MLflow."""
