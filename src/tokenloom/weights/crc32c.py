"""CRC-32C (Castagnoli), over many lanes at once: TensorFlow's check on all it writes (RFC 3720, section 12.1)."""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = 0x82F63B78  # reflected
_LANES, _WIDTH = 1 << 13, 1 << 10  # 8 MB at a time


def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _byte_table()
_PLAIN = _TABLE.tolist()


def crc32c(data: bytes | np.ndarray, before: int = 0) -> int:
    """The checksum of bytes (uint8 if an array); `before` is that of what came before them."""
    state = before ^ 0xFFFFFFFF
    array = np.frombuffer(data, dtype=np.uint8)
    whole = len(array) - len(array) % (_LANES * _WIDTH)
    for start in range(0, whole, _LANES * _WIDTH):
        state = _shift(np.array([state], np.uint32), _LANES * _WIDTH)[0] ^ _of_block(
            array[start : start + _LANES * _WIDTH]
        )
    return _of_rest(array[whole:], int(state)) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """As LevelDB and TensorFlow write it, for a checksum of data that holds its checksum says little."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _of_rest(array: np.ndarray, state: int) -> int:
    """Fewer bytes than a block: in lanes of a shorter width, then one by one."""
    width = len(array) // 256
    if width >= 16:
        state = int(
            _shift(np.array([state], np.uint32), 256 * width)[0] ^ _of_lanes(array[: 256 * width].reshape(256, width))
        )
        array = array[256 * width :]
    for byte in array.tolist():
        state = _PLAIN[(state ^ byte) & 0xFF] ^ state >> 8
    return state


def _of_block(array: np.ndarray) -> np.uint32:
    return _of_lanes(array.reshape(_LANES, _WIDTH))


def _of_lanes(rows: np.ndarray) -> np.uint32:
    """The state, from 0, after all of `rows` (lanes, width), of which the number is a power of 2."""
    states = np.zeros(len(rows), dtype=np.uint32)
    for column in np.ascontiguousarray(rows.T):
        states = _TABLE[(states ^ column) & 0xFF] ^ states >> np.uint32(8)
    length = rows.shape[1]
    while len(states) > 1:  # neighbours are joined: the left one has the right one's bytes still to pass over
        states = _shift(states[0::2], length) ^ states[1::2]
        length *= 2
    return states[0]


_SHIFTS: dict[int, np.ndarray] = {}


def _shift(states: np.ndarray, zeros: int) -> np.ndarray:
    """States after as many zero bytes: linear over bits, so a matrix, here as the images of the 32 bits."""
    if zeros not in _SHIFTS:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        result, power = bits, _TABLE[bits & 0xFF] ^ bits >> np.uint32(8)
        count = zeros
        while count:
            if count & 1:
                result = _apply(power, result)
            power = _apply(power, power)
            count >>= 1
        _SHIFTS[zeros] = result
    return _apply(_SHIFTS[zeros], states)


def _apply(matrix: np.ndarray, states: np.ndarray) -> np.ndarray:
    moved = np.zeros_like(states)
    for bit, image in enumerate(matrix):
        moved ^= np.where(states >> np.uint32(bit) & np.uint32(1), image, np.uint32(0))
    return moved
