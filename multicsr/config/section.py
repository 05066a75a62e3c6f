"""Base class of the sections, and the types of numbers that several of them use."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=0, le=5)]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class Section(BaseModel):
    """A section of the settings. It is immutable, and an unknown key or an infinite number is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
