"""One file per resource: HTTP in, HTTP out, nothing decided."""
