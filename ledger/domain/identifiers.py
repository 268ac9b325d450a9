"""What identifies a person, as far as a text's form tells: the identifiers of 45 CFR
164.514(b)(2), and codes of diagnoses.

Precise rather than greedy: usage must not be refused for a number that only looks odd. So what has
no form of its own, such as a record number, counts behind the word for it, and what has one is held
to its rules: area numbers, check digits, chapters. Every repetition is bounded, so that a search
takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address
from typing import Literal, NamedTuple

Identifier = Literal[
    "name",
    "address",
    "date",
    "age",
    "phone number",
    "e-mail address",
    "social security number",
    "medical record number",
    "health plan number",
    "account number",
    "licence number",
    "vehicle",
    "device",
    "web address",
    "IP address",
    "biometric",
    "photo",
    "diagnosis code",
]

# In place of \b, for which _ is a letter: tokens are full of them.
_B, _E = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
# The whole of a number: ids that a program made have parts that look like one.
_WHOLE, _NO_MORE = rf"{_B}(?<!\d[-.])", r"(?![-.]?\d)"
_TO = r"[\s:=#\"'._/-]{0,4}"  # from a word to what it stands for
_APART = _TO.replace("0", "1")  # ... where the word is short enough to be in an id by chance
_NO = r"(?:[ _-]?(?:number|num|no|ident|id|\#))"


def _long(digits: int) -> str:
    """A number behind its word: letters in front, then at least so many digits."""
    return rf"[A-Z]{{0,4}}-?\d(?:-?\d){{{digits - 1}}}"


_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_MM, _DD, _TH = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])", r"(?:st|nd|rd|th)?"
# Nothing that is billed here is older than 2020: an earlier date is about a person.
_PAST = r"(?:19\d\d|20[01]\d)"
_DATE = (  # of any year, behind a word such as `born`
    rf"(?:\d{{1,4}}[-/. ]\d{{1,2}}[-/. ]\d{{1,4}}|\d{{8}}|\d{{6}}|\d{{1,2}}/\d{{4}}"
    rf"|{_MONTH}[ -]?\d{{1,2}}{_TH},?[ -]{{1,2}}\d{{4}}|\d{{1,2}}{_TH}[ -]?{_MONTH},?[ -]?\d{{4}})"
)
_OF_A_DATE = (
    r"(?:dob|d\.o\.b|date[ _-]?of[ _-]?(?:birth|death|service|admission|discharge)"
    r"|birth[ _-]?da(?:te|y)|born|deceased|died|admitted|admission|discharged?|dos|dod)"
)
_AREA = r"(?:[2-9](?:\d[1-9]|[1-9]0)|800)"  # x00 is no area but for 800
_LINE = r"[2-9]\d\d[-. ]?\d{4}"
_PERSON = r"(?:patient|pt|member|subscriber|beneficiary|insured|guardian|mother|father|spouse)"
_NAMED = rf"(?:(?:first|last|middle|maiden|full|given|family|{_PERSON}(?:'?s)?)[ _-]?name|surname)"
_TEAM = (  # what stands behind "Patient" or "Member" and is no name
    r"Access|Advocate|App|Assistant|Billing|Calls?|Care|Cent(?:er|re)|Chat|Count|Data|Education|"
    r"Engagement|Experience|Feedback|Financial|First|Flow|Group|Health|Id|Intake|Line|Management|"
    r"Messages?|Minutes|Monitoring|Name|Outreach|Plan|Portal|Records?|Relations|Reminders?|Safety|"
    r"Satisfaction|Scheduling|Services?|Summary|Support|Survey|Transport|Triage|Usage|Visits?"
)
_WORD = rf"(?!(?:{_TEAM}){_E})[A-Z][a-z']{{1,30}}"
_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|"
    r"Terrace|Parkway|Pkwy|Circle|Cir|Highway|Hwy)"
)
_STATE = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|"
    r"S[CD]|T[NX]|UT|V[AT]|W[AIVY])"
)
# A Medicare beneficiary identifier, as CMS lays it out; its letters are without S, L, O, I, B, Z.
_L, _LN = r"[AC-HJKMNP-RT-Y]", r"[AC-HJKMNP-RT-Y0-9]"
_MBI = rf"[1-9]{_L}{_LN}\d-?{_L}{_LN}\d-?{_L}{{2}}\d\d"
# Categories of ICD-10-CM that exist. V, W and X are told by their last letter: V10.2 is a version.
_CODE = (
    r"(?:(?:[A-CFGIJL-OQRYZ]\d\d|[DE][0-8]\d|H[0-8]\d|H9[0-5]|K[0-8]\d|K9[0-5]|P[0-8]\d|P9[1-46]|S\d\d|T[0-8]\d|U07"
    r"|C4A|C7[AB]|D3A|M1A|O9A|Z3A)\.[0-9A-Z]{1,4}|[VWX]\d\d\.[0-9X]{1,3}[ADS])"
)
_CARD = (
    r"(?:4\d{3}|5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|6011|65\d\d"
    r"|64[4-9]\d|35\d\d)"
)
_BODY = r"(?:finger|voice|face|palm|retina|retinal|iris)[ _-]?(?:print|scan)?"
_PICTURE = r"(?:photo|face|selfie|portrait|headshot|patient|img|dsc|pxl|wound|x-?ray)"


def _any(_: str) -> bool:
    return True


def luhn(text: str) -> bool:
    """Whether the check digit of a payment card fits (ISO/IEC 7812)."""
    digits = [int(one) for one in reversed(text) if one.isdigit()]
    doubled = sum(sum(divmod(2 * one, 10)) for one in digits[1::2])
    return (sum(digits[::2]) + doubled) % 10 == 0


_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def _vin(text: str) -> bool:
    """Whether the check digit of a vehicle fits (49 CFR 565.15)."""
    values = [int(_VIN_VALUES.get(one, one)) for one in text]
    rest = sum(w * v for w, v in zip(_VIN_WEIGHTS, values, strict=True)) % 11
    return text[8] == ("X" if rest == 10 else str(rest)) and not text.isdigit()


def _ipv4(text: str) -> bool:
    """Not 1.2.3.4: versions have four numbers too, and short ones."""
    return len(text) > len("1.2.3.4")


def _ipv6(text: str) -> bool:
    """Not `cafe::feed`, which is a name in some languages: an address has a number in front."""
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    first = text.partition(":")[0]
    return text.count(":") == 7 or (len(first) == 4 and not first.isalpha())


class Detector(NamedTuple):
    """What a match of the pattern is, if the check holds as well."""

    identifier: Identifier
    pattern: re.Pattern[str]
    check: Callable[[str], bool]


def _form(
    identifier: Identifier, *patterns: str, check: Callable[[str], bool] = _any, flags: int = re.I
) -> list[Detector]:
    return [Detector(identifier, re.compile(one, flags | re.ASCII), check) for one in patterns]


# Surer ones first: of two that match, a refusal names the first.
DETECTORS: tuple[Detector, ...] = (
    *_form(
        "social security number",
        rf"{_B}(?:ssn|ss\#|itin|social[ _-]?security{_NO}?){_NO}?(?: is)?{_TO}"
        rf"\d{{3}}[-. _]?\d\d[-. _]?\d{{4}}{_E}",
        rf"{_B}(?:xxx|\*{{3}})[-. ](?:xx|\*\*)[-. ]\d{{4}}{_E}",
        rf"{_WHOLE}(?!000|666|9)\d{{3}}( ?[-. _] ?)(?!00)\d\d\1(?!0000)\d{{4}}{_NO_MORE}",
        # Of a taxpayer without one:
        rf"{_WHOLE}9\d\d([-. _])(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])\1\d{{4}}{_NO_MORE}",
    ),
    *_form("health plan number", rf"{_B}{_MBI}{_E}", flags=0),
    *_form(
        "health plan number",
        rf"{_B}{_MBI.replace('-?', '-')}{_E}",
        rf"{_B}(?:member|subscriber|policy|insurance|(?:health[ _-]?)?plan|group){_NO}{_TO}"
        rf"{_long(5)}",
        rf"{_B}(?:medicaid|medicare|beneficiary|hicn|mbi){_NO}?{_TO}{_long(5)}",
        rf"{_B}mbi{_NO}?{_TO}{_MBI}{_E}",
    ),
    *_form(
        "medical record number",
        rf"{_B}(?:mrn|medical[ _-]?record|(?:chart|patient|encounter){_NO}){_NO}?(?: is)?{_TO}"
        rf"{_long(4)}",
    ),
    *_form(
        "date",
        rf"{_B}{_OF_A_DATE}(?:[ _-]?date)?(?: (?:on|is|was|in))?{_TO}\(?{_DATE}(?!\d)",
        rf"{_WHOLE}{_PAST}([-/.]){_MM}\1{_DD}{_NO_MORE}",
        rf"{_WHOLE}(?:{_MM}([-/.]){_DD}\1|{_DD}([-/.]){_MM}\2){_PAST}{_NO_MORE}",
        rf"{_B}{_MONTH}[ -]{_DD}{_TH},?[ -]{{1,2}}{_PAST}{_E}",
        rf"{_B}{_DD}{_TH}[ -]?{_MONTH},?[ -]?{_PAST}{_E}",
        rf"\A{_PAST}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\Z",
    ),
    *_form(
        "age",
        rf"{_B}(?:9\d|1[01]\d)[ -]?(?:y/?o|y(?:ea)?rs?[ -]old){_E}",
        rf"{_B}aged?[ :=]{{1,2}}(?:9\d|1[01]\d){_E}",
    ),
    *_form(
        "e-mail address",
        r"(?<=[A-Z0-9_+%-])@[A-Z0-9][A-Z0-9-]{0,62}\.(?:[A-Z0-9-]{1,62}\.){0,4}[A-Z]{2}",
    ),
    *_form(
        "web address",
        rf"{_B}(?:https?|ftp)://[A-Z0-9]",
        rf"{_B}www\.[A-Z0-9-]{{1,63}}\.[A-Z]{{2}}",
    ),
    *_form(
        "phone number",
        rf"{_WHOLE}(?:\({_AREA}\) ?|{_AREA}[-.]){_LINE.replace('?', '')}{_NO_MORE}",
        rf"\+1[ .-]?\(?{_AREA}\)?[ .-]?{_LINE}(?!\d)",
        r"\+[2-9]\d{0,2}[ .-]\d{1,4}(?:[ .-]\d{2,4}){2,4}(?!\d)",
        rf"{_B}(?:tele)?(?:phone|tel|cell|mobile|call(?:ed)?(?: back)?|fax|ph){_NO}?[:.]?"
        rf"(?: (?:at|on|is))?{_TO}1?[ .-]?\(?{_AREA}\)?[ .-]?{_LINE}(?!\d)",
    ),
    *_form(
        "account number",
        rf"{_WHOLE}{_CARD}([ -]?)\d{{4}}\1\d{{4}}\1\d{{4}}(?![ -]?\d)",
        rf"{_WHOLE}3[47]\d\d([ -]?)\d{{6}}\1\d{{5}}(?![ -]?\d)",
        rf"{_WHOLE}3(?:0[0-5]|[68]\d)\d([ -]?)\d{{6}}\1\d{{4}}(?![ -]?\d)",
        check=luhn,
    ),
    *_form(
        "account number",
        rf"{_B}(?:account|acct|a/c|routing){_NO}{_TO}{_long(6)}",
        rf"{_B}(?:account|acct|a/c|iban){_TO}[A-Z]{{0,4}}\d(?:[ -]?\d){{7}}",
    ),
    *_form(
        "licence number",
        rf"{_B}(?:(?:licen[cs]e|certificate){_NO}|passport{_NO}?|driver'?s?[ _-]?licen[cs]e{_NO}?)"
        rf"{_TO}{_long(5)}",
    ),
    *_form("vehicle", rf"{_B}[A-HJ-NPR-Z0-9]{{13}}\d{{4}}{_E}", check=_vin, flags=0),
    *_form(
        "vehicle",
        rf"{_B}vin{_NO}?{_TO}[A-HJ-NPR-Z0-9]{{17}}{_E}",
        rf"{_B}(?:licen[cs]e|number|registration)[ _-]?plate{_NO}?{_TO}"
        r"(?=[A-Z -]{0,6}\d)[A-Z0-9]{2,4}[ -]?[A-Z0-9]{2,13}",
    ),
    *_form(
        "device",
        rf"{_B}(?:(?:serial|imei|udi|s/n){_NO}?"
        rf"|(?:device|implant|pacemaker)(?:[ _-]?serial)?{_NO}?){_APART}"
        rf"(?=(?:[A-Z-]{{0,6}}\d){{5}})[A-Z0-9-]{{5}}",
        r"\(01\)\d{14}",  # as labels of medical devices have it (GS1)
        rf"{_B}[0-9A-F]{{2}}([:-])(?:[0-9A-F]{{2}}\1){{4}}[0-9A-F]{{2}}(?![\w:-])",
    ),
    *_form(
        "IP address",
        r"(?<![\w.-])(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?![\w-]|\.\d)",
        check=_ipv4,
    ),
    *_form(
        "IP address",
        r"(?<![\w:])[0-9A-F]{1,4}:(?:[0-9A-F]{0,4}:){1,6}[0-9A-F]{0,4}(?![\w:])",
        check=_ipv6,
    ),
    *_form("diagnosis code", rf"{_B}{_CODE}(?![A-Za-z0-9]|\.\d|-\d)", flags=0),
    *_form(
        "diagnosis code",
        rf"{_B}(?:icd(?:[ -]?10)?(?:-?cm)?|dx|diagnosis)(?:[ _-]?code)?{_APART}"
        rf"[A-TV-Z]\d[0-9A-B]\.?[0-9A-Z]{{0,4}}{_E}",
    ),
    *_form(
        "photo",
        r"data:image/",
        rf"{_B}{_PICTURE}[\w -]{{0,40}}\.(?:jpe?g|png|heic|gif|tiff?|bmp|webp){_E}",
        rf"[A-Z0-9]\.(?:dcm|dicom){_E}",
    ),
    *_form(
        "biometric",
        rf"{_B}{_BODY}[ _-]?(?:template|hash|id|scan|data)? ?[:=\#] ?[A-Z0-9+/=]{{6}}",
        rf"{_B}biometrics?[ _-]?(?:id|hash|template|data)? ?[:=\#] ?[A-Z0-9+/=]{{6}}",
    ),
    *_form(
        "address",
        rf"{_B}\d{{1,6}}[A-Z]?[ _-](?:[NSEW]\.?[ _-])?"
        rf"(?:[A-Z][a-z]{{1,20}}\.?[ _-]|\d{{1,3}}(?:st|nd|rd|th)[ _-]){{1,3}}{_STREET}{_E}",
        rf"{_B}P\.? ?O\.? ?Box \d",
        rf"[a-z], {_STATE} \d{{5}}(?!\d)",
        flags=0,
    ),
    *_form(
        "address",
        rf"{_B}\d{{1,6}} (?:[a-z]{{2,20}} ){{1,2}}(?:street|avenue|boulevard|blvd){_E}",
        rf"{_B}zip(?:[ _-]?code)?{_TO}\d{{5}}(?!\d)",
    ),
    *_form("name", rf"{_B}{_NAMED}[\"']?\s?[:=]\s?[\"']?[A-Z]"),
    *_form(
        "name",
        rf"{_B}(?i:{_NAMED})(?: (?:is|was))? {_WORD}",
        rf"{_B}(?i:patient|pt)[:=] ?{_WORD}",
        rf"{_B}(?i:patient|pt\.?) {_WORD} {_WORD}",
        rf"{_B}M(?:r|rs|s|iss)\.? {_WORD}",
        flags=0,
    ),
)
