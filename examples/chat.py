"""Chat, streamed, with OpenAI's client: python examples/chat.py [base URL]"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{base_url}/v1", api_key=os.environ.get("INFERENCE_API_KEY", "unused"))

stream = client.chat.completions.create(
    model="smollm2-135m-instruct",
    messages=[{"role": "user", "content": "Write one sentence about the sea."}],
    max_tokens=40,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif chunk.usage:
        print(f"\n({chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens} tokens)")
