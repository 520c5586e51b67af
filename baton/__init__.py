"""What a person touches: the command line and the Python client."""

__version__ = "0.1.0"
