"""Tools in the words of ReAct, as Qwen's authors wrote them for their first chat models (openai_api.py of 2023).

The skeleton is theirs to the letter, because models were trained on it: instructions before the latest question, calls
and results as lines of the assistant's own turn, which is left open for the model to go on with.
"""

from collections.abc import Sequence
from itertools import takewhile

from shared.errors import InvalidRequest
from shared.job import Message, Part, Role, TextPart
from shared.tools import Call, Tool

STOP = "\nObservation:"
"""What a model would go on to make up itself."""
_TOOL = (
    "{name}: Call this tool to interact with the {name} API. What is the {name} API useful for? {about} Parameters: {}"
)
_ABOUT = """Answer the following questions as best you can. You have access to the following APIs:

{tools}

Use the following format:

Question: the input question you must answer
Thought: you should always think about what to do
Action: the action to take, should be one of [{names}]
Action Input: the input to the action
Observation: the result of the action
... (this Thought/Action/Action Input/Observation can be repeated zero or more times)
Thought: I now know the final answer
Final Answer: the final answer to the original input question

Begin!

Question: """


def write(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Return the conversation as texts; if it ends with a result, its last turn is the assistant's, and open."""
    written: list[Message] = []
    for index, message in enumerate(messages):
        if message.role is Role.TOOL:
            continue
        results = takewhile(lambda other: other.role is Role.TOOL, messages[index + 1 :])
        turn = _turn(message, {result.call_id: result for result in results}, has_tools=bool(tools))
        if turn.role is Role.ASSISTANT and index > 0 and messages[index - 1].role is Role.TOOL:
            turn = Message(Role.ASSISTANT, (*written.pop().parts, *turn.parts))
        written.append(turn)
    return _asked(written, tools) if tools else written


def _asked(messages: list[Message], tools: Sequence[Tool]) -> list[Message]:
    questions = [index for index, message in enumerate(messages) if message.role is Role.USER]
    if not questions:
        raise InvalidRequest("there is no user message for which the tools could be used", param="messages")
    latest = questions[-1]
    question = messages[latest]
    about = _ABOUT.format(tools="\n\n".join(map(_told, tools)), names=", ".join(tool.name for tool in tools))
    asked = Message(Role.USER, (TextPart(about), *question.parts))
    return [*messages[:latest], asked, *messages[latest + 1 :]]


def _told(tool: Tool) -> str:
    return _TOOL.format(tool.parameters or "{}", name=tool.name, about=tool.description or "")


def _turn(message: Message, results: dict[str, Message], *, has_tools: bool) -> Message:
    if message.role is not Role.ASSISTANT or not (message.calls or has_tools):
        return message
    if not message.calls:
        final = TextPart("Thought: I now know the final answer.\nFinal Answer: ")
        return Message(Role.ASSISTANT, (final, *message.parts))
    parts: list[Part] = [TextPart("Thought: "), *message.parts]
    for call in message.calls:
        parts += _call(call, results[call.id])
    return Message(Role.ASSISTANT, tuple(parts))


def _call(call: Call, result: Message) -> list[Part]:
    action = f"\nAction: {call.name}\nAction Input: {call.arguments}{STOP} "
    return [TextPart(action), *result.parts, TextPart("\n")]
