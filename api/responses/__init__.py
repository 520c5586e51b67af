"""OpenAI's Responses API over chat jobs: requests become jobs, and jobs' logs become responses, at any gateway."""
