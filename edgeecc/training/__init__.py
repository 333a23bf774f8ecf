"""The training loop that every solver shares, and distillation."""
