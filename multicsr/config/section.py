"""Base class of the sections, and the types of numbers that several of them use."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=0, le=5)]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class Section(BaseModel):
    """A section of the settings. It is immutable, and an unknown key or an infinite number is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: object, info: ValidationInfo) -> object:
        """Raise if true or false is given for a number: pydantic would take them for 1 and 0."""
        if isinstance(value, bool):
            kinds = {*_kinds(cls.model_fields[str(info.field_name)].annotation)}
            if kinds & {int, float} and bool not in kinds:
                raise ValueError("write a number")
        return value


def _kinds(annotation: Any) -> list[Any]:  # noqa: ANN401 - any annotation of a field
    """Return the types that an annotation consists of."""
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(kind for each in inner for kind in _kinds(each))]
