"""What tests of backbones share: a small open_clip model, written once."""

from tests.run.conftest import clip

__all__ = ["clip"]
