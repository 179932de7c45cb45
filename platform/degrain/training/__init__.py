"""The training loop: pure PyTorch in step, loop and session; Ray's part in worker and trainer."""
