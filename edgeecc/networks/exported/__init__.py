"""Programs of `torch.export`: read without unpickling, rebuilt as modules that can be trained and pruned."""
