"""Studies: the search over architectures and hyperparameters."""
