"""An answer that is always a valid object, with OpenAI's client:
python examples/structured_output.py [base URL]
"""

from __future__ import annotations

import os
import sys
from typing import Literal

from openai import OpenAI
from pydantic import BaseModel


class Review(BaseModel):
    product: Literal["kettle", "toaster", "lamp"]
    stars: Literal[1, 2, 3, 4, 5]
    recommended: bool


base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = OpenAI(base_url=f"{base_url}/v1", api_key=os.environ.get("INFERENCE_API_KEY", "unused"))

reply = client.chat.completions.parse(
    model="smollm2-135m-instruct",
    messages=[{"role": "user", "content": "The toaster is great, it lasts. Five stars!"}],
    response_format=Review,
    temperature=0,
)
review = reply.choices[0].message.parsed
assert review is not None
print(f"{review.product}: {review.stars} of 5, recommended: {review.recommended}")
