"""Tools, calls and results in prompts: written into the texts of a conversation, or handed to a template."""
