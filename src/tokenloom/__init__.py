"""Pretrain GPTs from scratch, measure them honestly, hand them on."""
__version__ = "0.1.0"
