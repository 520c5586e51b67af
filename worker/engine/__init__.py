"""Continuous batching: tokens and tensors in, tokens and text out.

It knows nothing of Redis, jobs, HTTP or model names.
"""
