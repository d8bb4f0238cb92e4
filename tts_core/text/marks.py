"""The punctuation of the seventeen languages, by what it means for breathing."""

STOPS = ".!?…‼⁇⁈⁉؟۔"
"""End a sentence where white space follows."""

WIDE_STOPS = "。！？．｡।॥"
"""End a sentence with or without white space behind them."""

CLAUSES = ";:؛"
WIDE_CLAUSES = "；：—"
"""The em dash stands between words without spaces in English, and doubled in Chinese."""

COMMAS = ",،"
WIDE_COMMAS = "，、､"

WIDE_CLOSERS = "”’)]}」』）］】〉》〕｣"
"""Quotes and brackets that only close, so they need no white space behind them."""

CLOSERS = WIDE_CLOSERS + "\"'“‘»«›‹"
"""Marks that close where a mark precedes and white space follows; German closes with the quotes others open with."""

OPENERS = "\"'“‘„«»‹›([{（「『【《〈［〔｢¿¡"
"""Marks a word may stand behind."""
