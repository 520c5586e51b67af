"""Calls of tools in an answer's text: found as it grows, wherever it is cut. Pure."""
