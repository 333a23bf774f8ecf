"""What `edgeecc compare` is made of: its request, cells, processes, search of rates, and the results in all forms."""
