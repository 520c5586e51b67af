"""The Python client: it talks OpenAI's language over HTTP, and knows nothing of queue, gateway or worker."""
