"""The base of every part of a spec."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Base of every part of a spec: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
