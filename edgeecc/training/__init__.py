"""The training loop that every solver shares, distillation, and the tasks that networks are trained for."""
