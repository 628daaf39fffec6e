"""A hostile template ends in a typed error: soon, small, and without touching the machine."""

from __future__ import annotations

import time
import tracemalloc
from datetime import datetime

import pytest

from models.chat.template import ChatTemplate
from models.chat.template_limits import LimitExceeded
from models.errors import InvalidInputError
from models.types.generation import ChatPrompt, Message

MEGABYTE = 2**20
HI = ChatPrompt((Message("user", "hi"),))

TOO_LARGE = {
    "repeated text": "{{ 'a' * 10**10 }}",
    "repeated list": "{{ [1] * 10**9 }}",
    "power": "{{ 2 ** (10**9) }}",
    "format width": "{{ '%0999999999d' % 1 }}",
    "computed width": "{{ '%*d' % (999999999, 1) }}",
    "format call": "{{ '{:999999999}'.format(1) }}",
    "padding": "{{ 'a'.rjust(10**10) }}",
    "replace": "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "replace filter": "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "join": "{{ ('a' * 8000000) | join('b' * 1000) }}",
    "indent": "{{ ('\\n' * 1000000) | indent(10000) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 8000000}) }}",
    "concatenation": "{% set x = 'a' * 4000000 %}{{ x ~ x ~ x }}",
    "nested list": "{% set x = 'a' * 3000000 %}{{ [[x, x], [x, x]] | length }}",
    "output": "{% set x = 'a' * 80000 %}{% for i in range(9000) %}{{ x }}{% endfor %}",
    "captured block": "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(40) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "macro": "{% set x = 'a' * 4000000 %}{% macro m() %}{% for i in range(9000) %}{{ x }}"
    "{% endfor %}{% endmacro %}{{ m() | length }}",
    "macro of plain text": "{% macro m() %}{% for i in range(9000) %}"
    + "a" * 10_000
    + "{% endfor %}{% endmacro %}{{ m() | length }}",
    "filter block": "{% set x = 'a' * 4000000 %}{% filter upper %}{% for i in range(9000) %}"
    "{{ x }}{% endfor %}{% endfilter %}",
    "range": "{% for i in range(10**9) %}{{ i }}{% endfor %}",
}
TOO_SLOW = {
    "nested loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "splitting": "{% for i in range(9999) %}{% set x = ('a,' * 20000).split(',') %}{% endfor %}",
    "macro calls": "{% macro m() %}{% endmacro %}{% for i in range(9999) %}"
    "{% for j in range(9999) %}{{ m() }}{% endfor %}{% endfor %}",
}
OUT_OF_BOUNDS = {
    "globals": "{{ lipsum.__globals__['os'].popen('true') }}",
    "classes": "{{ ''.__class__.__mro__ }}",
    "function": "{{ raise_exception.__globals__['os'] }}",
    "mutation": "{{ messages.append(1) }}",
    "include": "{% include '/etc/hostname' %}",
    "import": "{% import 'os' as os %}",
    "endless macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "endless loop": "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
}


def refusal(source: str, seconds: float = 10.0) -> BaseException | None:
    """What stood behind the refusal of a template that may render for so long."""
    template = ChatTemplate(source, render_seconds=seconds)
    with pytest.raises(InvalidInputError) as refused:
        template.render(HI)
    assert refused.value.param == "messages"
    return refused.value.__cause__


@pytest.mark.parametrize("source", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_would_become_large_is_not_made(source: str) -> None:
    tracemalloc.start()
    try:
        cause = refusal(source, seconds=120.0)
        assert tracemalloc.get_traced_memory()[1] < 64 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert isinstance(cause, LimitExceeded)
    assert "long" not in str(cause)


@pytest.mark.parametrize("source", TOO_SLOW.values(), ids=TOO_SLOW)
def test_what_would_take_long_is_given_up(source: str) -> None:
    started = time.thread_time()
    cause = refusal(source, seconds=0.1)
    assert time.thread_time() - started < 5  # the limit is 0.1 s; unbounded it is minutes
    assert isinstance(cause, LimitExceeded)
    assert "long" in str(cause)


@pytest.mark.parametrize("source", OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS)
def test_what_lies_outside_is_not_reached(source: str) -> None:
    assert refusal(source) is not None


@pytest.mark.parametrize(
    "expression", ["''|attr('__class__')", "messages|attr('__len__')", "range.__doc__"]
)
def test_hidden_attributes_are_undefined(expression: str) -> None:
    assert ChatTemplate("[{{ %s }}]" % expression).render(HI).text == "[]"  # noqa: UP031


def test_a_written_namespace_does_not_show_its_content() -> None:
    source = "{% set ns = namespace(x='a' * 3000000) %}{{ ns }}"
    assert ChatTemplate(source).render(HI).text == "<namespace>"


def test_limits_count_anew_for_every_rendering() -> None:
    template = ChatTemplate("{% set x = 'a' * 4000000 %}{% set y %}{{ x }}{% endset %}{{ y }}")
    for _ in range(5):
        assert len(template.render(HI).text) == 4_000_000


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ {'a': ['é', '<b>', None, true]} | tojson }}", '{"a": ["é", "<b>", null, true]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ [1, 2] | join('-') }}", "1-2"),
        ("{{ messages | join(',', attribute='role') }}", "user"),
        ("{{ 'a.b' | replace('.', ':') }}", "a:b"),
        ("{{ 'x\\ny' | indent(2) }}", "x\n  y"),
        ("{{ 'a' ~ 1 ~ none }}", "a1None"),
        ("{{ '%s-%d' % ('a', 2) }}", "a-2"),
        ("{{ 2 ** 10 }}", "1024"),
        ("{{ messages | map(attribute='content') | list | first }}", "hi"),
        ("{{ undefined_name }}|{{ messages[0].missing }}", "|"),
        ("{% for m in [1,2,3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{% generation %}{{ 'body' }}{% endgeneration %}", "body"),
        ("{%- macro m(a) -%}<{{ a }}>{%- endmacro -%}{{ m('b') }}", "<b>"),
        ("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}", "1"),
        ("{{ 'Ab'.upper() }}{{ ' x '.strip() }}{{ 'a,b'.split(',')[-1] }}", "ABxb"),
        ("{{ messages[0]['content'][:1] }}", "h"),
    ],
)
def test_what_ordinary_templates_use_works(source: str, expected: str) -> None:
    assert ChatTemplate(source).render(HI).text == expected


def test_the_date_is_today() -> None:
    text = ChatTemplate("{{ strftime_now('%Y') }}").render(HI).text
    assert abs(int(text) - datetime.now().astimezone().year) <= 1
