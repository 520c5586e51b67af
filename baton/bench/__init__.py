"""A load generator for any OpenAI endpoint: what to ask, when, over which connections, and what came of it."""
