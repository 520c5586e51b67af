"""OpenAI's words: the only place their field names are spelled."""
