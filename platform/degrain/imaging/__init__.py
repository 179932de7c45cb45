"""Photos, their noise and their metrics, without networks, Ray and MLflow."""
