"""Settings of the cards that are published with an encoder and its triplets."""

import re

from pydantic import field_validator

from multicsr.config.section import Section

_LANGUAGE = re.compile(r"[a-z]{2,3}")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")


class CardConfig(Section):
    """Statements for the cards that `fetch`, `export` and `push` write.

    None of them changes an artifact. A card states only what is set here or known from the store.
    """

    license: str | None = None
    """Licence of the encoder, as the Hugging Face hub names it, such as `apache-2.0`; unset: the card states
    none. It must agree with the licence of `train.encoder`."""
    data_license: str | None = None
    """Licence of the curated triplets; unset: their card states none. It must agree with that of the
    sentences."""
    languages: list[str] = []
    """Languages of encoder and triplets, as codes of ISO 639, such as `en`; empty: those of the sentences."""
    base_model: str | None = None
    """Hugging Face id of the model that `train.encoder` was made from, if that is a directory."""

    @field_validator("license", "data_license")
    @classmethod
    def _names_of_licences(cls, license: str | None) -> str | None:
        if license is not None and not _LICENSE.fullmatch(license):
            raise ValueError(f"{license!r} is no licence name of the Hugging Face hub; write one such as mit")
        return license

    @field_validator("base_model")
    @classmethod
    def _id_of_a_model(cls, base_model: str | None) -> str | None:
        if base_model is not None and not _MODEL_ID.fullmatch(base_model):
            raise ValueError(f"{base_model!r} is no id of the Hugging Face hub; write organisation/name")
        return base_model

    @field_validator("languages")
    @classmethod
    def _codes(cls, languages: list[str]) -> list[str]:
        for language in languages:
            if not _LANGUAGE.fullmatch(language):
                raise ValueError(
                    f"{language!r} is no code of ISO 639; write two or three small letters, as in en"
                )
        return languages
