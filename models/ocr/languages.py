"""Names of languages as clients write them, and what an engine says to those it cannot read.

Clients send ISO 639-1 codes ("de"), ISO 639-2 ones ("deu", "ger"), BCP 47 tags ("de-AT", "zh-Hant")
or the names of Tesseract's and EasyOCR's files ("chi_sim", "ch_tra").
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from models.errors import UnsupportedInputError

PARAM = "languages"

TRADITIONAL_CHINESE = "zh-hant"

_CODES = """
af:afr am:amh ar:ara as:asm az:aze be:bel bg:bul bn:ben bo:bod br:bre bs:bos ca:cat co:cos cs:ces
cy:cym da:dan de:deu dv:div dz:dzo el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas fi:fin fo:fao
fr:fra fy:fry ga:gle gd:gla gl:glg gu:guj he:heb hi:hin hr:hrv ht:hat hu:hun hy:hye id:ind is:isl
it:ita iu:iku ja:jpn jv:jav ka:kat kk:kaz km:khm kn:kan ko:kor ku:kmr ky:kir la:lat lb:ltz lo:lao
lt:lit lv:lav mi:mri mk:mkd ml:mal mn:mon mr:mar ms:msa mt:mlt my:mya ne:nep nl:nld no:nor oc:oci
or:ori pa:pan pl:pol ps:pus pt:por qu:que rm:roh ro:ron ru:rus sa:san sd:snd si:sin sk:slk sl:slv
sq:sqi sr:srp su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tl:tgl to:ton tr:tur tt:tat
ug:uig uk:ukr ur:urd uz:uzb vi:vie yi:yid yo:yor zh:zho
"""
ALPHA3 = dict(pair.split(":") for pair in _CODES.split())
"""ISO 639-1 to ISO 639-2 (terminological), which is also the name of Tesseract's file."""

_OTHER_CODES = """
alb:sq arm:hy baq:eu bur:my chi:zh cze:cs dut:nl fre:fr geo:ka ger:de gre:el ice:is mac:mk mao:mi
may:ms per:fa rum:ro slo:sk tib:bo wel:cy iw:he in:id nb:no nn:no nob:no nno:no fil:tl cmn:zh
yue:zh-hant kur:ku
"""
_OTHER_NAMES = dict(pair.split(":") for pair in _OTHER_CODES.split())
_PRIMARY = {**{three: two for two, three in ALPHA3.items()}, **_OTHER_NAMES}
_TRADITIONAL = frozenset({"hant", "tw", "hk", "mo", "tra"})


def canonical(language: str) -> str:
    """The ISO 639-1 code where there is one ("zh-hant" for traditional Chinese), else lower case.

    >>> canonical("ger"), canonical("pt-BR"), canonical("chi_tra"), canonical("xx")
    ('de', 'pt', 'zh-hant', 'xx')
    """
    primary, *subtags = language.strip().lower().replace("_", "-").split("-")
    if primary == "ch" and subtags and subtags[0] in {"sim", "tra"}:
        primary = "zh"
    code = _PRIMARY.get(primary, primary)
    if code == "zh" and _TRADITIONAL & set(subtags):
        return TRADITIONAL_CHINESE
    return code


def check_languages(languages: Iterable[str], readable: Collection[str]) -> None:
    """UnsupportedInputError when one of them is not among the `readable` canonical codes."""
    for language in languages:
        if canonical(language) not in readable:
            raise unreadable(language, readable)


def unreadable(language: str, readable: Collection[str]) -> UnsupportedInputError:
    """The error for one language; it names those that there are."""
    names = ", ".join(sorted(readable)) or "none"
    return UnsupportedInputError(
        f"This model does not read the language '{language[:32]}'; it reads: {names}.", PARAM
    )
