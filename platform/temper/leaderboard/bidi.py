"""Characters that turn the direction of the text around them."""

BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F])
"""For ``str.translate``, which leaves them out."""
