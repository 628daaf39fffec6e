"""The pictures on pages, cut out of the pages' own pictures."""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing
from dataclasses import replace

from deployments.ingress.document_inputs import Input
from deployments.ingress.document_reading import ReadOptions, document_request
from deployments.ingress.routes.ocr_schemas import OcrPage
from deployments.ingress.server import Server
from models.page_formats.crops import crops


async def add_crops(server: Server, options: ReadOptions, document: Input, page: OcrPage) -> None:
    """Fill in `image_base64` of the page's images, from its picture. Raises ModelError."""
    boxes = [(i.top_left_x, i.top_left_y, i.bottom_right_x, i.bottom_right_y) for i in page.images]
    boxes = [(x, y, max(right, x + 1), max(bottom, y + 1)) for x, y, right, bottom in boxes]
    if not boxes:
        return
    request = document_request(server, options, document.source, document.param)
    request = replace(request, pages=((page.index, page.index),))
    async with aclosing(server.clients.ocr.page_images(request)) as pictures:
        async for _, picture in pictures:
            cut = await asyncio.to_thread(crops, picture, boxes)
            for image, data in zip(page.images, cut, strict=True):
                encoded = base64.b64encode(data).decode()
                image.image_base64 = f"data:image/jpeg;base64,{encoded}"
