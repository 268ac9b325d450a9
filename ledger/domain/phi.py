"""Whether a text holds what identifies a person. A second net: the first is that few fields take
text at all. Neither knows a name, or another word without a form, in a token that is nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Set
from functools import lru_cache

from ledger.domain.identifiers import DETECTORS, Identifier, luhn

NONE: frozenset[Identifier] = frozenset()
REDACTED = "[redacted]"

_UUID = re.compile("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Dashes and an apostrophe that NFKC leaves as they are.
_PLAIN = {**dict.fromkeys((*range(0x2010, 0x2016), 0x2043, 0x2212, 0xFE58), "-"), 0x2019: "'"}
# One digit at a time: 1 2 3 - 4 5 - 6 7 8 9.
_SPACED = re.compile(r"(?<!\d)(?:\d(?: ?[-_] ?| )){8,15}\d(?!\d)")
_AS_SPACED = (re.compile(r"(?!000|666|9)\d{9}"), re.compile(r"[2-9](?:\d[1-9]|[1-9]0)[2-9]\d{6}"))


def identifier(text: str, allowed: Set[Identifier] = NONE) -> Identifier | None:
    """The surest thing in a text that identifies a person; None where there is nothing but
    what is `allowed`."""
    plain = text if text.isascii() else _ascii(text)
    if _UUID.fullmatch(plain) or not _may_hold(plain.translate(_ZEROS)):
        return None
    return next((found for found, _, _ in _spans(plain, allowed)), None)


def redacted(text: str, allowed: Set[Identifier] = NONE) -> str:
    """The text with each word that is part of such a thing left out."""
    plain = text if text.isascii() else _ascii(text)
    if not _may_hold(plain.translate(_ZEROS)):
        return text
    spans = sorted((start, end) for _, start, end in _spans(plain, allowed))
    if not spans:
        return text
    parts, at = [], 0
    for found_at, end in spans:
        if found_at >= at:
            start, end = _whole_words(plain, found_at, end)
            parts += [plain[at:start], REDACTED]
            at = end
    return "".join([*parts, plain[at:]])


def _spans(text: str, allowed: Set[Identifier]) -> Iterator[tuple[Identifier, int, int]]:
    for found, pattern, check in DETECTORS:
        if found not in allowed:
            for match in pattern.finditer(text):
                if check(match.group()):
                    yield found, match.start(), match.end()
    for match in _SPACED.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        spaced: Identifier | None = None
        if _AS_SPACED[0].fullmatch(digits):
            spaced = "social security number"
        elif _AS_SPACED[1].fullmatch(digits):
            spaced = "phone number"
        elif len(digits) > 12 and luhn(digits):
            spaced = "account number"
        if spaced and spaced not in allowed:
            yield spaced, match.start(), match.end()


def _ascii(text: str) -> str:
    """The text as it is read: full-width and other digits are digits, dashes are dashes, and what
    shows nothing is left out."""
    folded = unicodedata.normalize("NFKC", text.translate(_PLAIN))
    return "".join(
        str(unicodedata.decimal(one)) if one.isdecimal() else one
        for one in folded
        if unicodedata.category(one) != "Cf"
    )


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """A match may begin or end within a word: an e-mail address is told by its @."""
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    return start, end


# Most texts are ids that differ in digits alone: one look is enough for thousands of them.
_ZEROS = str.maketrans("123456789", "000000000")
# Every match of a detector has one of these words or forms in it; a test compares.
_LETTERS = re.compile("[a-z]+")
_WORDS = frozenset(
    _LETTERS.findall("""
    account acct admission admitted age aged apr april aug august ave avenue beneficiary
    biometric biometrics birth birthdate birthday blvd bmp born boulevard box call called
    cell certificate chart cir circle court ct dcm dec deceased december device diagnosis
    dicom died discharge discharged dob dod dos dr drive driver drivers dx encounter face
    faceprint fax feb february finger fingerprint firstname ftp fullname gif group health
    heic hicn highway http https hwy iban icd image imei implant insurance iris itin jan
    january jpeg jpg jul july jun june lane lastname licence license ln mar march may mbi
    medicaid medical medicare member miss mobile mr mrn mrs ms name nov november number oct
    october old pacemaker palm parkway passport patient patientname ph phone pkwy pl place
    plan plate png policy pt rd registration retina retinal road routing sep sept september
    serial social ss ssn st street subscriber surname tel telephone terrace tif tiff udi vin
    voice voiceprint way webp www xxx yo zip
    """)
)
_ONE_BY_ONE = r"0(?: ?[-_] ?| )0(?: ?[-_] ?| )0(?: ?[-_] ?| )0(?: ?[-_] ?| )0"
# Each behind a sign without which it cannot be: looking for that costs next to nothing.
_FORMS = [
    (sign, re.compile(form))
    for sign, form in (
        ("@", "@"),
        ("+0", r"\+0"),
        ("(00", r"\(00"),
        ("***", r"\*\*\*"),
        (
            "0000",
            r"\A0{8}\Z|, [A-Z]{2} 00000|[A-HJ-NPR-Z0]{13}0000"
            r"|(?<![A-Za-z0])(?:000 ?[-._ ] ?00 ?[-._ ] ?0000|000[-.]000[-. ]0000"
            r"|0000[-/.]00?[-/.]0|00?[-/.]00?[-/.]0000(?!0)|0000([ -]?)(?:0000\1|00)0000\1?0000)",
        ),
        (".", r"0\.0{1,3}\.0{1,3}\.0|[A-Z]0[0AB]\.[0A-Z]|(?i:d\.o\.b)"),
        ("/", "(?i:a/c|s/n|y/o)"),
        (":", "(?<![A-Za-z0:])[0A-Fa-f]{1,4}:[0A-Fa-f]{0,4}:"),
        ("-", rf"[0A-Fa-f]{{2}}-[0A-Fa-f]{{2}}-[0A-Fa-f]{{2}}-|{_ONE_BY_ONE}"),
        (" ", _ONE_BY_ONE),
        ("_", _ONE_BY_ONE),
        ("0", "0[A-Za-z][A-Za-z0]0-?[A-Za-z][A-Za-z0]0-?[A-Za-z]{2}00"),
    )
]


@lru_cache(maxsize=8192)
def _may_hold(shape: str) -> bool:
    """Whether the detectors have to be tried; they take ten times as long."""
    if shape.replace("-", "").replace("_", "").isalpha():
        return False  # words alone; names and labels need more
    if not _WORDS.isdisjoint(_LETTERS.findall(shape.lower())):
        return True
    return any(sign in shape and form.search(shape) for sign, form in _FORMS)
