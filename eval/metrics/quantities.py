"""Quantities in a text, normalised so that `5毫米`, `5 mm` and `5 millimeters` are equal.

After NFKC, thousands separators are removed and units are replaced by their symbols.
"""

import re
import unicodedata

UNITS = {
    "%": r"percent|per cent",
    "°C": r"摄氏度|攝氏度|degrees? (?:celsius|centigrade)|° c",
    "°": r"degrees?|度",
    "nm": r"纳米|奈米|nanomet(?:er|re)s?",
    "μm": r"微米|micromet(?:er|re)s?|microns?|um",
    "mm": r"毫米|公厘|millimet(?:er|re)s?",
    "cm": r"厘米|公分|centimet(?:er|re)s?",
    "km": r"千米|公里|kilomet(?:er|re)s?",
    "m": r"米|公尺|met(?:er|re)s?",
    "μg": r"微克|micrograms?|ug",
    "mg": r"毫克|milligrams?",
    "kg": r"千克|公斤|kilograms?",
    "g": r"公克|克(?!服)|grams?",
    "mL": r"毫升|millilit(?:er|re)s?|ml",
    "L": r"公升|升(?![高降起温溫])|lit(?:er|re)s?",
    "ms": r"毫秒|milliseconds?",
    "s": r"秒|seconds?|secs?",
    "min": r"分钟|分鐘|minutes?|mins?",
    "h": r"小时|小時|hours?|hrs?",
    "kV": r"千伏|kilovolts?",
    "mV": r"毫伏|millivolts?",
    "V": r"伏|volts?",
    "mA": r"毫安|milliamperes?",
    "A": r"安培|amperes?",
    "kW": r"千瓦|kilowatts?",
    "W": r"瓦|watts?",
    "GHz": r"吉赫|gigahertz",
    "MHz": r"兆赫|megahertz",
    "kHz": r"千赫|kilohertz",
    "Hz": r"赫兹|赫茲|hertz",
    "MPa": r"兆帕|megapascals?",
    "kPa": r"千帕|kilopascals?",
    "Pa": r"帕|pascals?",
    "kΩ": r"千欧|千歐|kiloohms?",
    "Ω": r"欧姆|歐姆|ohms?",
    "N": r"牛顿|牛頓|newtons?",
    "K": r"开尔文|kelvins?",
    "mol": r"摩尔|莫耳|moles?",
    "rpm": r"转/分|revolutions per minute|r/min",
}
"""Symbol (case-sensitive) to the pattern of its names (case-insensitive)."""
_NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)?"
# A unit followed by a Latin letter is another word; the A in `2 A device` is an article.
_NAMES = {symbol: re.compile(rf"(?:{names})(?![a-z])", re.IGNORECASE) for symbol, names in UNITS.items()}
_UNIT = "|".join(
    rf"{re.escape(symbol)}(?![A-Za-z]{'| [a-z]' if symbol == 'A' else ''})|(?i:{names.pattern})"
    for symbol, names in _NAMES.items()
)
QUANTITY = re.compile(rf"(?P<share>百分之)?(?P<number>{_NUMBER})(?:\s*-?(?P<unit>{_UNIT}))?")


def quantities(text: str) -> list[str]:
    """All numbers in a text, with their units if any: `5mm`, `30%`, `1000`."""
    results = []
    for match in QUANTITY.finditer(unicodedata.normalize("NFKC", text)):
        unit = _symbol(match["unit"]) if match["unit"] else "%" if match["share"] else ""
        results.append(match["number"].replace(",", "") + unit)
    return results


def _symbol(unit: str) -> str:
    return unit if unit in UNITS else next(symbol for symbol, names in _NAMES.items() if names.match(unit))
