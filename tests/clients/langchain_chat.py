"""Asks for a picture's description with LangChain, whole and streamed: `langchain_chat.py <url> <model> <picture>`."""

import json
import sys

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

url, model, picture = sys.argv[1:]
chat = ChatOpenAI(model=model, base_url=url, api_key="none", temperature=0, max_tokens=12, stream_usage=True)
content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "What is this?"}]
messages = [HumanMessage(content=content)]

plain = chat.invoke(messages)
chunks = list(chat.stream(messages))
streamed = "".join(chunk.content for chunk in chunks)
counted = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
json.dump({"plain": plain.content, "streamed": streamed, "usage": [plain.usage_metadata, counted[-1]]}, sys.stdout)
