"""Settings of curation as they are applied to one scored artifact, with what the scores themselves decide."""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from multicsr.config import Config, CurateConfig
from multicsr.errors import ConfigError
from multicsr.stages.generate.calibrate import read_map
from multicsr.stages.score.calibration import ScoreMap
from multicsr.stages.score.scorer import column_of, scorer_named, stored_name
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store


class Curation(CurateConfig):
    """Settings of curation with the score that decides, and with the map that calibrates it."""

    score: str = "llm_expected"
    """Score that is compared with the thresholds; a package that made it may be gone since."""
    calibration: ScoreMap | None = None
    """Map that scores pass before they are compared; None: they are compared as they are."""

    @property
    def column(self) -> str:
        """Return the end of the names of the columns with the scores a and b."""
        return column_of(self.score)

    @classmethod
    def of(cls, config: Config, store: Store, scored: Manifest) -> "Curation":
        """Return the settings for the rows of a scored artifact.

        Raises:
            ConfigError: the rows were scored without the score that `curate.score` selects, or the pairs of
                `score.calibrate` were not scored.
        """
        rule = cls(**config.curate.model_dump(exclude_unset=True) | {"score": config.deciding_score})
        rule.check_scored(scored)
        return rule.model_copy(update={"calibration": read_map(config, store, scored.settings)})

    @classmethod
    def stored(cls, manifest: Manifest | None) -> "Curation | None":
        """Return the settings in the manifest of a curated artifact; None if there are none."""
        made = None if manifest is None else manifest.settings.get("curate")
        if not isinstance(made, dict):
            return None
        # The stored settings contain gamma even for the rule that has none, which validation would reject.
        has_gamma = made.get("rule") != "reference"
        rule: dict[str, Any] = {name: made[name] for name in made if has_gamma or name != "gamma"}
        return cls.model_validate(rule | {"score": scorer_named(str(made["score"]))})

    def to_store(self) -> dict[str, JsonValue]:
        """Return the settings for a manifest; those that are unset are left out."""
        made = self.model_dump(mode="json", exclude={"keep_share", "calibration", "max_word_ratio"})
        later = self.model_dump(mode="json", include={"calibration", "max_word_ratio"}, exclude_none=True)
        return {**made, "score": stored_name(self.score), **later}

    def check_scored(self, scored: Manifest) -> None:
        """Raise ConfigError if rows were scored without the score that is compared with the thresholds."""
        method = method_of(scored.settings)
        made = ("expected", "stated") if method == "both" else (method,)
        if method is not None and stored_name(self.score) not in made:
            raise ConfigError(
                f"curate.score is {self.score}, but rows were scored by {scorer_named(method)}; run "
                "`multicsr generate` with score.method as it is now, or set score.method to what it was"
            )


def method_of(settings: Mapping[str, JsonValue]) -> str | None:
    """Return the stored name of the method by which the rows of an artifact were scored."""
    scoring = settings.get("scoring")
    score = scoring.get("score") if isinstance(scoring, dict) else None
    method = score.get("method") if isinstance(score, dict) else None
    return None if method is None else str(method)
