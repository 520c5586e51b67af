"""Templates that know tools, as people write them for checkpoints of each format."""

TOOLS = """{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}These can be called:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
as <tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}{% for message in messages %}{% if message.role == 'assistant' and message.tool_calls %}<|im_start|>assistant
{% if message.content %}{{ message.content }}{% endif %}{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role != 'system' %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""In the manner of Qwen2.5."""
LLAMA3 = """{%- for message in messages %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length > 1 %}{{ raise_exception("one call at once") }}{% endif %}
{%- set called = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + called.name + '", "parameters": ' }}
{{- (called.arguments | tojson) + '}<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\\n\\n' }}
{%- if tools and loop.first %}{{ 'These can be called:\\n' + (tools | tojson(indent=4)) + '\\n\\n' }}{% endif %}
{{- message.content + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
"""In the manner of Llama 3.1."""
MISTRAL = """{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools and loop.last %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST]' + message.content + '[/INST]' }}
{%- elif message.tool_calls %}CALLS
{%- elif message.role == 'tool' %}
{{- '[TOOL_RESULTS]' + ({"content": message.content, "call_id": message.tool_call_id} | tojson) + '[/TOOL_RESULTS]' }}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception("ids have 9 characters") }}{% endif %}
{%- else %}{{ message.content + '<|im_end|>' }}
{%- endif %}
{%- endfor %}"""
MISTRAL_LIST = MISTRAL.replace(
    "CALLS",
    """{{ '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}
{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + (']' if loop.last else ', ') }}
{%- endfor %}{{ '<|im_end|>' }}""",
)
"""In the manner of Mistral 7B v0.3."""
MISTRAL_NAMED = MISTRAL.replace(
    "CALLS",
    """
{%- for call in message.tool_calls %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson) }}
{%- endfor %}{{ '<|im_end|>' }}""",
)
"""In the manner of Mistral Small 3.2."""
