"""Which families a model belongs to, by what its template and its vocabulary contain."""

from __future__ import annotations

from collections.abc import Collection

from models.chat.template import knows_tools
from models.chat.tool_formats.base import ToolFormat
from models.chat.tool_formats.deepseek import BEGIN, DeepSeekFormat
from models.chat.tool_formats.json_calls import HermesFormat, JsonFormat, LlamaFormat
from models.chat.tool_formats.mistral import MistralFormat
from models.chat.tool_formats.qwen_coder import QwenCoderFormat


def detect_tool_formats(
    template_source: str, control_texts: Collection[str]
) -> tuple[ToolFormat, ...]:
    """The forms in which a model may call tools, the one it is asked for first.

    A model whose template knows nothing of tools is told to call them as Hermes does; it may know
    another form from its training.
    """
    own = _own_format(template_source, control_texts)
    if knows_tools(template_source):
        return (own,)
    hermes = HermesFormat()
    others = () if set(own.openings) & set(hermes.openings) else (own,)
    return (hermes, *others)


def _own_format(source: str, control_texts: Collection[str]) -> ToolFormat:
    def knows(text: str) -> bool:
        return text in source or text in control_texts

    if knows(BEGIN):
        return DeepSeekFormat(fenced="```json" in source)
    if knows("[TOOL_CALLS]"):
        return MistralFormat(named="[ARGS]" in source)
    if "<function=" in source and knows("<seed:tool_call>"):
        return QwenCoderFormat("<seed:tool_call>", "</seed:tool_call>")
    if "<function=" in source:
        return QwenCoderFormat()
    if knows("<tool_call>"):
        return HermesFormat()
    if knows("<|python_tag|>"):
        return LlamaFormat()
    return JsonFormat()
