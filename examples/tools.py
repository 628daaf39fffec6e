"""A tool that the model calls, with OpenAI's client: python examples/tools.py [base URL]"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from openai import OpenAI

MODEL = "smollm2-135m-instruct"
TEMPERATURES = {"Paris": 18, "London": 12, "Tokyo": 24}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_temperature",
        "description": "The temperature in a city, in degrees Celsius.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": list(TEMPERATURES)}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{base_url}/v1", api_key=os.environ.get("INFERENCE_API_KEY", "unused"))
messages: list[Any] = [{"role": "user", "content": "What is the temperature in Tokyo?"}]

reply = client.chat.completions.create(
    model=MODEL,
    messages=messages,
    tools=[TOOL],
    tool_choice="required",
    parallel_tool_calls=False,
    temperature=0,
)
messages.append(reply.choices[0].message)
for call in reply.choices[0].message.tool_calls or []:
    assert call.type == "function"
    city = json.loads(call.function.arguments)["city"]
    print(f"{call.function.name}: {city}")
    answer = {"role": "tool", "tool_call_id": call.id, "content": f"{TEMPERATURES[city]} °C"}
    messages.append(answer)

reply = client.chat.completions.create(
    model=MODEL, messages=messages, tools=[TOOL], tool_choice="none", max_tokens=40, temperature=0
)
print(reply.choices[0].message.content)
