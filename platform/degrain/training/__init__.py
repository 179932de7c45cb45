"""The training loop in pure PyTorch; `distributed` runs it on Ray."""
