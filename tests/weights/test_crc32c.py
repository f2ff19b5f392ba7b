"""The checksum against known values, and however the bytes are cut."""

import numpy as np
import pytest

from tokenloom.weights.crc32c import _LANES, _WIDTH, crc32c, masked


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_published_values_come_out(data, crc):
    """RFC 3720, appendix B.4."""
    assert crc32c(data) == crc


def test_long_data_in_lanes_equal_the_same_in_pieces():
    data = np.random.default_rng(1).integers(0, 256, _LANES * _WIDTH + 70_001, dtype=np.uint8)
    pieces = 0
    for start in range(0, len(data), 3000):  # too short for lanes
        pieces = crc32c(data[start : start + 3000], pieces)
    assert crc32c(data) == crc32c(data.tobytes()) == pieces


def test_the_mask_is_leveldbs():
    assert masked(0) == 0xA282EAD8
