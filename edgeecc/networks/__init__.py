"""Networks that edgeecc knows by name, one file per family, and their table."""
