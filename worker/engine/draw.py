"""The numbers that sampling draws by: functions of seed and position, the same on every worker."""

_MASK = (1 << 64) - 1


def uniform(seed: int, position: int) -> float:
    """Return the number in [0, 1) that belongs to this seed and position."""
    return (_mix(_mix(seed & _MASK) + position & _MASK) >> 11) * 2.0**-53


def choice_seed(seed: int, index: int) -> int:
    """Return the seed of one of several choices; the first one has the request's own."""
    return seed if index == 0 else _mix(_mix(seed & _MASK) ^ _mix(~index & _MASK))


def _mix(state: int) -> int:
    """One output of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit."""
    state = state + 0x9E3779B97F4A7C15 & _MASK
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
    return state ^ state >> 31
