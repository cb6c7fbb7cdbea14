"""Shared by tests of backbones: a small open_clip model, written once."""

from tests.run.conftest import clip

__all__ = ["clip"]
