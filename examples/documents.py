"""A scan as markdown, searchable PDF and typed fields: documents.py [base URL] [image]"""

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
ROWS = [("Item", "Count", "Price"), ("Green tea", "2", "5.00"), ("Coffee", "1", "3.50")]


def sample_invoice() -> bytes:
    image = Image.new("RGB", (900, 500), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 30), "Invoice 2041", "black", ImageFont.load_default(56))
    font = ImageFont.load_default(28)
    draw.text((40, 120), "Thank you for your order.", "black", font)
    for row, cells in enumerate([*ROWS, ("Total", "", "8.50")]):
        for x, text in zip((40, 400, 650), cells, strict=True):
            draw.text((x, 200 + 55 * row), text, "black", font)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


scan = Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else sample_invoice()
schema = {
    "type": "object",
    "properties": {
        "invoice_number": {"type": "string", "maxLength": 12},
        "total": {"type": "number"},
    },
    "required": ["invoice_number", "total"],
    "additionalProperties": False,
}

with httpx.Client(base_url=base_url, timeout=300, headers=headers) as client:

    def read_as(form: str) -> httpx.Response:
        kind = {"content-type": "image/png"}
        reply = client.post(f"/v1/ocr?format={form}", content=scan, headers=kind)
        return reply.raise_for_status()

    print(read_as("markdown").text)
    pdf = read_as("pdf").content
    print(f"a searchable PDF of {len(pdf)} bytes")

    # Fields in the types of a JSON Schema, each with its place on the page. A larger chat model
    # than the starter model finds the right ones.
    body = {"images": [base64.b64encode(scan).decode()], "schema": schema}
    reply = client.post("/v1/documents/extract", json=body).raise_for_status()
    for field in reply.json()["data"][0]["fields"]:
        print(f"{field['key']} = {json.dumps(field['value'])} at {field['bbox']}")
