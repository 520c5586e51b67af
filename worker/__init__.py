"""The GPU side: claims jobs, runs the model, publishes events.

It knows nothing of HTTP or of OpenAI's field names.
"""
