"""What messages of several rooms say alike."""

__all__ = ["clock", "counted"]


def counted(count: int, things: str) -> str:
    """ "1 class", "2 classes": things are given as several, in the plainest English plural."""
    if count == 1:
        things = things.removesuffix("es") if things.endswith("sses") else things.removesuffix("s")
    return f"{count} {things}"


def clock(seconds: float, decimals: int = 1, hours: bool = False) -> str:
    """Minutes and seconds, and hours where there are some or if they are asked for: 0:07.5, 1:00:07.5."""
    units = 10**decimals
    minutes, rest = divmod(round(seconds * units), 60 * units)
    hour, minutes = divmod(minutes, 60)
    text = f"{rest / units:0{decimals + 3 if decimals else 2}.{decimals}f}"
    return f"{hour}:{minutes:02}:{text}" if hour or hours else f"{minutes}:{text}"
