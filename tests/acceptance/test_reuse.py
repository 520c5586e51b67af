"""What a worker still holds of a conversation is told in the usage, and nowhere else to be seen."""

from shared.job import MediaKind, MediaPart, Message, Role, TextPart
from tests.acceptance.conftest import MODEL
from tests.acceptance.test_chat import MEDIA, picture, text
from tests.worker.models.golden import generate, golden_model, sequence

NUM_TOKENS = 12
SYSTEM = "Look closely, and say what is to be seen."
QUESTION = "What is on the first of the pictures?"


def turns(media_url, name, *says):
    begin = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [picture(media_url, name), text(QUESTION)]},
    ]
    roles = ("assistant", "user")
    return begin + [{"role": roles[index % 2], "content": said} for index, said in enumerate(says)]


def prompt_of(name, *says):
    """The same conversation as a worker prepares it."""
    part = MediaPart(MediaKind.IMAGE, name, "messages[1].content[0]")
    roles = (Role.ASSISTANT, Role.USER)
    messages = (
        Message(Role.SYSTEM, (TextPart(SYSTEM),)),
        Message(Role.USER, (part, TextPart(QUESTION))),
        *(Message(roles[index % 2], (TextPart(said),)) for index, said in enumerate(says)),
    )
    return golden_model().prepare(messages, {part: (MEDIA / name).read_bytes()})


def said_afresh(prompt):
    return generate(golden_model().runner, sequence(prompt, max_tokens=NUM_TOKENS))[0]


def ask(client, messages, **options):
    return client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=NUM_TOKENS, temperature=0, **options
    )


def test_second_turn_about_a_picture_reads_only_what_is_new(client, media_url):
    begin = prompt_of("photo.jpg")
    first = ask(client, turns(media_url, "photo.jpg"))
    says = (first.choices[0].message.content, "And on the second one?")

    second = ask(client, turns(media_url, "photo.jpg", *says))
    *_, streamed = ask(
        client, turns(media_url, "photo.jpg", *says), stream=True, stream_options={"include_usage": True}
    )

    assert len(begin.token_ids) <= second.usage.prompt_tokens_details.cached_tokens < second.usage.prompt_tokens
    assert streamed.usage.prompt_tokens_details.cached_tokens == second.usage.prompt_tokens - 1
    assert second.choices[0].message.content == said_afresh(prompt_of("photo.jpg", *says))


def test_another_picture_shares_only_the_words_before_it(client, media_url):
    ask(client, turns(media_url, "photo.jpg"))
    prompt = prompt_of("square.png")

    other = ask(client, turns(media_url, "square.png"))

    assert other.usage.prompt_tokens_details.cached_tokens == prompt.pieces[0].places[0]
    assert other.choices[0].message.content == said_afresh(prompt)
