"""Programs that come with Debian, not with pip, and that some tests need."""

import pytest


def needs(program: object, package: str) -> pytest.MarkDecorator:
    """A mark that skips tests where a program was not found, and names its package."""
    return pytest.mark.skipif(not program, reason=f"needs a program: apt-get install {package}")
