"""Read an image, and a document page by page: python examples/ocr.py [base URL] [file]"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path

import httpx
from PIL import Image, ImageDraw, ImageFont

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
headers = {"authorization": f"Bearer {os.environ.get('INFERENCE_API_KEY', 'unused')}"}


def page(*lines: str) -> Image.Image:
    image = Image.new("RGB", (640, 60 + 70 * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        draw.text((20, 20 + 70 * row), line, "black", ImageFont.load_default(40))
    return image


def sample_image() -> bytes:
    buffer = io.BytesIO()
    page("Invoice 2041", "Total: 128.50 EUR").save(buffer, "PNG")
    return buffer.getvalue()


def sample_document() -> bytes:
    """Two scanned pages in a PDF file."""
    buffer = io.BytesIO()
    second = page("Terms of payment", "Within 30 days")
    page("Invoice 2041").save(buffer, "PDF", save_all=True, append_images=[second])
    return buffer.getvalue()


with httpx.Client(base_url=base_url, timeout=120, headers=headers) as client:
    # An image in Mistral's shape, with the position of every line.
    uri = f"data:image/png;base64,{base64.b64encode(sample_image()).decode()}"
    body = {"model": "pp-ocrv6", "document": {"type": "image_url", "image_url": uri}}
    reply = client.post("/v1/ocr", json=body).raise_for_status()
    for image in reply.json()["pages"]:
        print(image["markdown"])
        for line in image["lines"]:
            print(f"  {line['confidence']:.2f} at {line['polygon'][0]}: {line['text']}")

    # A document as a file: upload it once, read it as often as needed, here page by page.
    content = Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else sample_document()
    uploaded = client.post("/v1/files", files={"file": content}, data={"purpose": "ocr"})
    file = uploaded.raise_for_status().json()
    print(f"{file['id']}: {file['bytes']} bytes, {file['page_count']} pages")
    body = {"document": {"type": "file", "file_id": file["id"]}, "stream": True}
    with client.stream("POST", "/v1/ocr", json=body) as events:
        for event in events.iter_lines():
            if event.startswith("data: {"):
                part = json.loads(event.removeprefix("data: "))
                if "markdown" in part:
                    print(f"page {part['index']} ({part['source']}): {part['markdown']!r}")
    client.delete(f"/v1/files/{file['id']}").raise_for_status()
