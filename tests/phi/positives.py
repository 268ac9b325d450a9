"""500 and more texts that must not enter, by what they hold: each a seed, written by hand, in a
place where it could stand. None is anybody's."""

from __future__ import annotations

from collections.abc import Callable

from ledger.domain.identifiers import Identifier

PLACES = {"alone": "{}", "in prose": "refunded, see {} and close", "in a path": "call/{}"}

SEEDS: dict[Identifier, list[str]] = {
    "social security number": [
        "123-45-6789", "219-09-9999", "078 05 1120", "457.55.5462", "001_01_0001",
        "SSN:219-09-9999", "ssn 219099999", "social security number 457555462", "xxx-xx-6789",
        "912-70-1234",
    ],
    "health plan number": [
        "1EG4TE5MK73", "1EG4-TE5-MK73", "2A22A22AA22", "1eg4-te5-mk73", "mbi 1eg4te5mk73",
        "member id 84412290", "medicaid number AB-1234567", "policy_number=X1234567",
        "subscriber-id:00012345", "hicn 123456789A",
    ],
    "medical record number": [
        "MRN 1234567", "mrn:0012345", "mrn_88412", "mrn-A12345", "medical record number 552211",
        "medical record no. 552211", "chart #44120", "patient id 100233", "patient_id=100233",
        "encounter number 7733221",
    ],
    "date": [
        "1961-04-12", "04/12/1961", "12.04.1961", "4-12-1961", "April 12, 1961", "12 Apr 1961",
        "DOB 4/12/61", "born 2021-03-09", "date of birth: March 9, 2021", "admitted on 2026-10-03",
        "discharged 10/03/2026", "dob:19610412",
    ],
    "age": ["93 years old", "age 94", "aged 101", "97 y/o", "90-year-old", "99yo", "91 yrs old",
            "age: 92", "115 years old"],
    "phone number": [
        "415-555-0123", "(415) 555-0123", "415.555.0123", "+14155550123", "+1 415 555 0123",
        "phone 4155550123", "tel: 415 555 0123", "fax 415-555-0199", "+44 20 7946 0958",
        "call back at 4155550123",
    ],
    "e-mail address": [
        "ada@example.com", "ada.lovelace+x@mail.example.org", "ADA@EXAMPLE.COM", "a@b.co",
        "ada_l@clinic-north.example", "x1@sub.domain.example.net", "ada-l@example.io",
        "mailto:ada@example.com", "contact=ada@example.com",
    ],
    "account number": [
        "4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005",
        "6011111111111117", "30569309025904", "account number 00123456", "acct_no 99887766",
        "account 12345678", "routing number 021000021",
    ],
    "licence number": [
        "license no D1234567", "driver's license D1234567", "licence number: 5512341",
        "drivers_license_A1234567", "passport 123456789", "passport no C01234567",
        "certificate number 778899", "license id 44556677", "driver license #S5500112",
    ],
    "vehicle": [
        "1M8GDM9AXKP042788", "1HGCM82633A004352", "5YJSA1DG9DFP14705", "license plate 7ABC123",
        "license plate: ABC 1234", "number plate AB12 CDE", "VIN 1HGCM82633A004352",
        "registration plate=KXZ4417", "license_plate_8XYZ991",
    ],
    "device": [
        "serial number 8812345", "serial no. AB-12345-6", "S/N: 99120045", "IMEI 490154203237518",
        "device id 00412-88871", "pacemaker serial PM123456", "(01)00844588003288",
        "00:1A:2B:3C:4D:5E", "00-1A-2B-3C-4D-5E", "implant id 5512345",
    ],
    "web address": [
        "https://example.com/p/17", "http://example.org", "HTTPS://EXAMPLE.COM", "www.example.com",
        "ftp://files.example.net/x", "http://192.0.2.1/", "https://ada.example",
        "https://localhost:8081/x", "www.sub.example.co.uk",
    ],
    "IP address": [
        "192.168.1.20", "10.20.30.40", "203.0.113.9", "255.255.255.0", "172.16.0.12", "100.64.0.1",
        "2001:db8::8a2e:370:7334", "fe80::1", "2001:0db8:0000:0000:0000:ff00:0042:8329",
    ],
    "biometric": [
        "fingerprint: a81f99c2d0", "fingerprint hash=a81f99c2d0", "voiceprint id: 99aa12bc",
        "retina scan: 0f0f0f0f", "iris template=QUJDREVGRw==", "face-id:88aa77bb66",
        "biometric hash: 5f5f5f5f", "biometrics=QUJDREVG", "palm print: 8812ab90",
    ],
    "photo": [
        "data:image/png;base64,iVBORw0KGgo", "patient-17.jpg", "photo_of_ada.jpeg", "IMG_4411.HEIC",
        "DSC01234.jpg", "selfie.png", "scan17.dcm", "face front.webp", "x-ray-left.tiff",
    ],
    "diagnosis code": [
        "E11.9", "F32.1", "S72.001A", "Z79.4", "C4A.10", "U07.1", "V03.10XA", "icd E119",
        "icd-10: f32.1", "dx:e11.9", "diagnosis code J45",
    ],
    "address": [
        "12 Main Street", "1600 N. Harbor Blvd", "77 West 5th Ave", "4411 Elm Rd", "PO Box 1182",
        "P.O. Box 77", "500 oak ridge avenue", "zip code 94110", "Springfield, IL 62704",
    ],
    "name": [
        "patient_name: Ada", "first name = Ada", '"last_name": "Lovelace"', "surname: Lovelace",
        "patient name Ada Lovelace", "Patient: Ada", "patient Ada Lovelace", "Mrs. Lovelace",
        "Mr Lovelace", "maiden name is Byron",
    ],
}  # fmt: skip

# What a path could not hold, or would change.
NOT_IN_A_PATH = {"IP address", "web address"}

_DIGITS = "0123456789"
_OBFUSCATED: dict[str, Callable[[str], str]] = {
    "full-width": lambda text: "".join(
        chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text
    ),
    "Arabic digits": lambda text: text.translate(str.maketrans(_DIGITS, "٠١٢٣٤٥٦٧٨٩")),
    "mathematical digits": lambda text: "".join(
        chr(0x1D7CE + int(one)) if one in _DIGITS else one for one in text
    ),
    "zero-width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: text[:1] + "\u00ad" + text[1:],
    "other dashes": lambda text: text.replace("-", "\u2013"),
    "other spaces": lambda text: text.replace(" ", "\u00a0"),
}
SPACED: dict[str, tuple[Identifier, str]] = {
    "1 2 3 4 5 6 7 8 9": ("social security number", "1 2 3 4 5 6 7 8 9"),
    "dashes": ("social security number", "1-2-3-4-5-6-7-8-9"),
    "both": ("social security number", "1 2 3 - 4 5 - 6 7 8 9"),
    "spaces around dashes": ("social security number", "123 - 45 - 6789"),
    "a phone number": ("phone number", "4 1 5 5 5 5 0 1 2 3"),
    "a card": ("account number", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
}


def _placed() -> dict[str, tuple[Identifier, str]]:
    return {
        f"{identifier} {number} {place}": (identifier, text.format(seed))
        for identifier, seeds in SEEDS.items()
        for number, seed in enumerate(seeds)
        for place, text in PLACES.items()
        if place != "in a path" or identifier not in NOT_IN_A_PATH
    }


def _obfuscated() -> dict[str, tuple[Identifier, str]]:
    return {
        f"{identifier}, {way}": (identifier, obfuscate(SEEDS[identifier][0]))
        for identifier in SEEDS
        for way, obfuscate in _OBFUSCATED.items()
        if obfuscate(SEEDS[identifier][0]) != SEEDS[identifier][0]
    }


POSITIVES = {**_placed(), **_obfuscated(), **{f"spaced, {k}": v for k, v in SPACED.items()}}
