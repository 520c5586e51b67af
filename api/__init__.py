"""The gateway: HTTP in, job out; events in, SSE out.

It is stateless: what outlives a request lies in Redis. It knows nothing of models or tensors.
"""
