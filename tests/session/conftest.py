"""Shared by tests of sessions: a small model and a few photographs, written once."""

from tests.run.conftest import clip, photographs

__all__ = ["clip", "photographs"]
