"""Read the text of an image: python examples/ocr.py [base URL] [image file]"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import httpx
from PIL import Image, ImageDraw, ImageFont

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"


def sample_image() -> bytes:
    image = Image.new("RGB", (640, 160), "white")
    draw = ImageDraw.Draw(image)
    draw.text((20, 20), "Invoice 2041", "black", ImageFont.load_default(40))
    draw.text((20, 90), "Total: 128.50 EUR", "black", ImageFont.load_default(40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


image = Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else sample_image()
uri = f"data:image/png;base64,{base64.b64encode(image).decode()}"
reply = httpx.post(
    f"{base_url}/v1/ocr",
    json={"model": "pp-ocrv6", "document": {"type": "image_url", "image_url": uri}},
    timeout=120,
).raise_for_status()
for page in reply.json()["pages"]:
    print(page["markdown"])
    for line in page["lines"]:
        print(f"  {line['confidence']:.2f} at {line['polygon'][0]}: {line['text']}")
