"""Asks for a picture's description with LiteLLM, whole and streamed: `litellm_chat.py <url> <model> <picture>`."""

import json
import sys

import litellm

url, model, picture = sys.argv[1:]
content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "What is this?"}]
asked = {
    "model": f"openai/{model}",
    "api_base": url,
    "api_key": "none",
    "messages": [{"role": "user", "content": content}],
    "temperature": 0,
    "max_tokens": 12,
}

plain = litellm.completion(**asked)
chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
counted = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
told = (plain.usage, counted[-1])
usages = [{"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens} for usage in told]
json.dump({"plain": plain.choices[0].message.content, "streamed": streamed, "usage": usages}, sys.stdout)
