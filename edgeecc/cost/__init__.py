"""Cost models: what a network costs as a function of its widths."""
