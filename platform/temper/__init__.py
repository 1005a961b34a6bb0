"""temper: make a pretrained vision model yours, and hard to fool."""

__version__ = "0.1.0.dev0"
