"""The contract between gateway and worker.

Everything here has bytes that cross Redis, or a name both sides must spell the same way.
It knows nothing of HTTP, of arq, of tensors or of pictures.
"""
