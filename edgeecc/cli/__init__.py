"""The command line: options, one error boundary, and output."""
