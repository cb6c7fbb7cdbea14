"""Shared by tests of backbones: a small open_clip model."""

from tests.run.conftest import clip

__all__ = ["clip"]
