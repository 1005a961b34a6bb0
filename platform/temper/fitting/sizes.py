"""Which sizes of images a network is tried at."""

SIZES = (32, 64, 96, 128, 160, 224)
"""In pixels."""
SMALL_SIZES = (8, 16, 24)
"""Further ones, for networks that nobody's weights belong to."""
LARGEST = SIZES[-1]
"""What shards keep of larger images."""
STRETCH = 1.4
"""Times the images' own long side that a network may see: beyond it there is nothing more to be seen."""
SMALLEST_OF_LARGE = 64
"""For networks of larger images, whose first layers reduce them at once."""
LARGE = 128
LARGEST_AT_RANDOM = 64
"""From random weights more pixels cost more than they give."""


def sizes_for(long_side: int, own_size: int | None) -> list[int]:
    """The sizes to try with images of ``long_side`` pixels, ascending; never empty.

    ``own_size``: of the images that a pretrained network was made for; ``None`` where that is not known.
    """
    is_large = own_size is None or own_size >= LARGE
    smallest = SMALLEST_OF_LARGE if is_large else own_size or SIZES[0]
    largest = max(smallest, STRETCH * long_side)
    if not is_large:
        largest = min(largest, 2 * smallest)
    return [size for size in sorted({*SIZES, smallest}) if smallest <= size <= largest]


def size_at_random(long_side: int) -> int:
    """The size for a small network that starts from random weights."""
    fitting = [size for size in (*SMALL_SIZES, *SIZES) if size <= min(STRETCH * long_side, LARGEST_AT_RANDOM)]
    return max(fitting, default=SMALL_SIZES[0])
