"""What messages of several rooms say alike."""

__all__ = ["counted"]


def counted(count: int, things: str) -> str:
    """ "1 class", "2 classes": things are given as several, in the plainest English plural."""
    if count == 1:
        things = things.removesuffix("es") if things.endswith("sses") else things.removesuffix("s")
    return f"{count} {things}"
