"""Training on a cluster: Ray Train workers, Ray Tune trials and the driver."""
