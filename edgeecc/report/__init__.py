"""The report of a calibration: what its samples say of the device and of the cost model, as charts and a page."""
