"""Calibration over several boards: what they are, how each is driven, who measures what, and what becomes of them."""
