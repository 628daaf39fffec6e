"""Pages in Mistral's shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from deployments.ingress.routes.ocr_output import OcrOutput
from deployments.ingress.routes.ocr_schemas import (
    BlockScores,
    Dimensions,
    OcrBlock,
    OcrImage,
    OcrLine,
    OcrPage,
    OcrReply,
    OcrStreamEnd,
    OcrTable,
    OcrUsage,
    PageScores,
    WordScore,
)
from models.page_formats.blocks import Block, table_html
from models.page_formats.geometry import rounded, words_of
from models.page_formats.margins import with_margins
from models.page_formats.markdown import block_markdown, blocks_markdown
from models.page_formats.regions import blocks_of
from models.page_formats.word_places import word_places
from models.types.pages import DocumentPage

SCREEN_DPI = 72
"""Images carry no reliable resolution; Mistral's clients expect a number."""
LINK = re.compile(r"https?://[^\s<>()\[\]\"']+[^\s<>()\[\]\"'.,;:!?]")


class MistralShape:
    """The answer to one request; tables and pictures are numbered through its pages."""

    def __init__(self, model: str, size_bytes: int, output: OcrOutput) -> None:
        self._model = model
        self._size_bytes = size_bytes
        self._output = output
        self._table_count = 0
        self._image_count = 0

    def page(self, page: DocumentPage) -> OcrPage:
        written = _WrittenPage(page, self._output, self._table_count, self._image_count)
        self._table_count += len(written.tables)
        self._image_count += len(written.images)
        return written.reply()

    def whole(self, pages: list[DocumentPage]) -> OcrReply:
        return OcrReply(
            pages=[self.page(page) for page in pages],
            model=self._model,
            usage_info=self._usage(len(pages)),
        )

    def end(self, page_count: int) -> OcrStreamEnd:
        return OcrStreamEnd(model=self._model, usage_info=self._usage(page_count))

    def _usage(self, page_count: int) -> OcrUsage:
        return OcrUsage(pages_processed=page_count, doc_size_bytes=self._size_bytes)


class _WrittenPage:
    """One page: which of its blocks stand in the markdown, and which beside it."""

    def __init__(
        self, page: DocumentPage, output: OcrOutput, first_table: int, first_image: int
    ) -> None:
        self._page = page
        self._output = output
        self._blocks = blocks_of(page.page)
        if output.extract_header or output.extract_footer:
            self._blocks = with_margins(self._blocks, page.page)
        self._names: dict[int, str] = {}
        self.tables = self._tables(first_table)
        self.images = self._images(first_image)

    def reply(self) -> OcrPage:
        page, output = self._page.page, self._output
        inside = [block for block in self._blocks if not self._is_apart(block)]
        markdown = blocks_markdown(inside, self._write)
        with_blocks = output.include_blocks or output.confidence_scores_granularity == "block"
        return OcrPage(
            index=self._page.index,
            markdown=markdown,
            images=self.images,
            dimensions=Dimensions(
                dpi=self._page.dpi or SCREEN_DPI, height=page.height, width=page.width
            ),
            tables=self.tables,
            hyperlinks=list(dict.fromkeys(LINK.findall(page.text))),
            header=self._margin("header") if output.extract_header else None,
            footer=self._margin("footer") if output.extract_footer else None,
            blocks=[self._block(block) for block in self._blocks] if with_blocks else None,
            confidence_scores=self._scores(inside),
            lines=[
                OcrLine(text=line.text, confidence=line.confidence, polygon=list(line.polygon))
                for line in page.lines
            ],
            source="text_layer" if self._page.text_layer else "ocr",
        )

    def _tables(self, first: int) -> list[OcrTable]:
        form = self._output.table_format
        if form is None:
            return []
        write, ending = (table_html, "html") if form == "html" else (block_markdown, "md")
        tables: list[OcrTable] = []
        for block in self._blocks:
            if block.kind == "table" and block.cells:
                name = self._names[id(block)] = f"tbl-{first + len(tables)}.{ending}"
                tables.append(OcrTable(id=name, content=write(block), format=form))
        return tables

    def _images(self, first: int) -> list[OcrImage]:
        least, most = self._output.image_min_size or 0, self._output.image_limit
        images: list[OcrImage] = []
        for block in self._blocks:
            sides = min(block.box.width, block.box.height)
            if block.kind != "image" or sides < least or len(images) == most:
                continue
            name = self._names[id(block)] = f"img-{first + len(images)}.jpeg"
            images.append(OcrImage(id=name, **self._corners(block)))
        return images

    def _is_apart(self, block: Block) -> bool:
        output = self._output
        return bool(
            (block.kind == "header" and output.extract_header)
            or (block.kind == "footer" and output.extract_footer)
        )

    def _write(self, block: Block) -> str:
        name = self._names.get(id(block))
        if name is not None:
            return f"![{name}]({name})" if block.kind == "image" else f"[{name}]({name})"
        return block_markdown(block)

    def _margin(self, kind: str) -> str | None:
        return blocks_markdown([block for block in self._blocks if block.kind == kind]) or None

    def _block(self, block: Block) -> OcrBlock:
        name = self._names.get(id(block))
        by_block = self._output.confidence_scores_granularity == "block"
        return OcrBlock(
            type=block.kind,
            **self._corners(block),
            content=self._write(block),
            image_id=name if block.kind == "image" else None,
            table_id=name if block.kind == "table" else None,
            confidence_scores=_block_scores(block) if by_block else None,
        )

    def _corners(self, block: Block) -> dict[str, int]:
        names = ("top_left_x", "top_left_y", "bottom_right_x", "bottom_right_y")
        return dict(zip(names, rounded(block.box, self._page.page), strict=True))

    def _scores(self, inside: Sequence[Block]) -> PageScores | None:
        granularity = self._output.confidence_scores_granularity
        words = [word.confidence for line in self._page.page.lines for word in words_of(line)]
        if granularity is None or not words:
            return None
        scores = None
        if granularity == "word":
            scores = [
                WordScore(text=word.text, confidence=word.confidence, start_index=start)
                for word, start in word_places(inside, self._write)
            ]
        return PageScores(
            average_page_confidence_score=fmean(words),
            minimum_page_confidence_score=min(words),
            word_confidence_scores=scores,
        )


def _block_scores(block: Block) -> BlockScores:
    words = [word.confidence for line in block.lines for word in words_of(line)]
    return BlockScores(
        average_content_confidence_score=fmean(words) if words else None,
        minimum_content_confidence_score=min(words) if words else None,
        block_type_confidence_score=block.confidence,
    )
