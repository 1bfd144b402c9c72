"""Drives the server with the official client. Usage: openai_client.py BASE_URL MODEL [IMPORTED_MODEL ...]"""

import asyncio
import sys

import openai


def check(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")


def main(base_url, name, *imported):
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)

    models = client.models.list().data
    check([model.id for model in models] == [name, *imported], "the list of models")
    check(client.models.retrieve(name).id == name, "one model")

    options = dict(model=name, max_tokens=12, temperature=0.7, seed=7)
    messages = [{"role": "user", "content": "It was"}]

    chat = client.chat.completions.create(messages=messages, **options)
    check(chat.object == "chat.completion" and chat.model == name, "the head of a chat")
    check(chat.choices[0].message.role == "assistant" and chat.choices[0].message.content, "a message")
    check(chat.choices[0].finish_reason == "length", "the reason of the end")
    check(chat.usage.completion_tokens == 12, "the counts of a chat")
    check(chat.usage.total_tokens == chat.usage.prompt_tokens + 12, "the sum of the counts")
    check(chat.system_fingerprint, "the fingerprint")

    text, roles, finish, usage = "", [], None, None
    stream_options = {"include_usage": True}
    for chunk in client.chat.completions.create(messages=messages, stream=True, stream_options=stream_options, **options):
        check(chunk.object == "chat.completion.chunk", "the head of a chunk")
        for choice in chunk.choices:
            roles.append(choice.delta.role)
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
        usage = chunk.usage or usage
    check(text == chat.choices[0].message.content, "the streamed text of a chat")
    check(roles[0] == "assistant" and not any(roles[1:]), "the role comes first, and once")
    check(finish == "length" and usage == chat.usage, "the end of a stream")

    several = client.chat.completions.create(messages=messages, n=3, logprobs=True, top_logprobs=2, **options)
    check([choice.index for choice in several.choices] == [0, 1, 2], "several answers")
    check(several.choices[0].message.content == text, "the first of several answers")
    check(len(several.choices[1].logprobs.content) == 12, "log-probabilities of a chat")
    check(len(several.choices[1].logprobs.content[0].top_logprobs) == 2, "the most probable tokens")

    completion = client.completions.create(prompt=["It was", "She"], echo=True, logprobs=1, **options)
    check(completion.object == "text_completion" and len(completion.choices) == 2, "a completion")
    check(completion.choices[0].text == "It was" + text, "a completion continues like a chat")
    check(completion.choices[1].text.startswith("She"), "the echo of a prompt")
    check(len(completion.choices[0].logprobs.tokens) == 12, "log-probabilities of a completion")
    parts = [chunk.choices[0].text for chunk in client.completions.create(prompt="It was", stream=True, **options)]
    check("".join(parts) == text, "the streamed text of a completion")

    stop = next(text[at : at + 2] for at in range(len(text) // 3, len(text)) if text[at : at + 2].isascii())
    stopped = client.completions.create(prompt="It was", stop=[stop], **options).choices[0]
    check(stopped.text == text[: text.index(stop)] and stopped.finish_reason == "stop", "a stop string")

    with client.chat.completions.create(messages=messages, stream=True, **options) as stream:
        next(iter(stream))
    # Leaving the block closes the connection; the server goes on.

    for wrong, error in [
        (dict(model="other"), openai.NotFoundError),
        (dict(temperature=9), openai.BadRequestError),
        (dict(messages=[{"role": "user", "content": "stone " * 500}]), openai.BadRequestError),
    ]:
        try:
            client.chat.completions.create(**{**options, "messages": messages, **wrong})
            sys.exit(f"failed: {wrong} was accepted")
        except error as refused:
            check(refused.body["message"] and refused.code, "an error has a message and a code")

    check(asyncio.run(together(base_url, messages, options)) == [text] * 4, "several clients at a time")
    for model in imported:
        check_imported(client, model, {**options, "model": model})
    print("all good")


def check_imported(client, name, options):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "It was"}]
    chat = client.chat.completions.create(messages=messages, **options)
    check(chat.model == name and chat.choices[0].message.content, "an answer of an imported model")
    stream = client.chat.completions.create(messages=messages, stream=True, **options)
    parts = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    check("".join(parts) == chat.choices[0].message.content, "the streamed answer of an imported model")
    text = client.completions.create(prompt="It was", **options).choices[0].text
    check(text, "a completion of an imported model")
    try:
        client.chat.completions.create(**{**options, "messages": [{"role": "user", "content": "stone " * 500}]})
        sys.exit("failed: a prompt beyond the context was accepted")
    except openai.BadRequestError as refused:
        check(refused.code == "context_length_exceeded", "the code of a prompt beyond the context")


async def together(base_url, messages, options):
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60) as client:
        asked = [client.chat.completions.create(messages=messages, **options) for _ in range(4)]
        return [chat.choices[0].message.content for chat in await asyncio.gather(*asked)]


if __name__ == "__main__":
    main(*sys.argv[1:])
