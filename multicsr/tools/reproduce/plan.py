"""Configurations of the rows of a table, and the settings by which each differs from the row above."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from multicsr.config import Config
from multicsr.config_file import build_config, flat_settings, setting_as_text
from multicsr.errors import ConfigError
from multicsr.tools.reproduce.paper import BACKBONES, WRITING, Origin, PaperEntry, PaperRow
from multicsr.tools.reproduce.scale import CHATGPT, Inputs, ReproduceOptions, at_endpoint, base_tree

_NO_DIFFERENCE = {"name", "store", "s3", "lease_s", "input"}
"""Settings that no row sets; `input` is shown as the name of the source."""
_MAIN = {"train.mask": "sigma", "generate.demonstrations": "similarity"}
"""Setting of a section that stands for it where the other side has none."""
_OWN_INPUT = ("examples",)
"""Sources that this package holds."""


@dataclass(frozen=True)
class RowPlan:
    """A row of a table with the settings of its run."""

    row: PaperRow
    config: Config | None
    """Settings of the run; None if no settings could run it."""
    reason: str = ""
    """Reason for which the row is not run; empty if it is."""
    changes: tuple[str, ...] = ()
    """Settings by which it differs from the row above that is run, `setting: value there -> value here`; of
    the first row, from the base of the table."""

    def settings(self) -> dict[str, object]:
        """Return all settings that decide the row's figures, by dotted name."""
        return {} if self.config is None else _settings(self.row, self.config)


def config_of(plan: RowPlan) -> Config:
    """Return the settings of a row that is run.

    Raises:
        ConfigError: it has none.
    """
    if plan.config is None:
        raise ConfigError(f"{plan.row.name}: {plan.reason}")
    return plan.config


def plan_rows(entry: PaperEntry, options: ReproduceOptions, inputs: Inputs) -> list[RowPlan]:
    """Return the plans of all rows of a table, in its order.

    Raises:
        ConfigError: a setting is not valid, or no row has what it needs.
    """
    plans: list[RowPlan] = []
    above: dict[str, object] = {}
    known: dict[str, str] = {}
    for row in entry.rows:
        if row.missing:
            plans.append(RowPlan(row, None, row.missing))
            continue
        config = _config(row, entry, options, inputs)
        settings = _settings(row, config)
        key = json.dumps(settings, sort_keys=True)
        reason = _missing_input(row, entry, options, inputs)
        if not reason and key in known:
            reason = f"at this scale the same as {known[key]!r}"
        if reason:
            plans.append(RowPlan(row, config, reason))
            continue
        known[key] = row.name
        plans.append(
            RowPlan(row, config, "", tuple(_changes(above or _base(entry, options, inputs), settings)))
        )
        above = settings
    if all(plan.reason for plan in plans):
        reasons = dict.fromkeys(plan.reason for plan in plans if not plan.row.missing)
        raise ConfigError(f"{entry.name}: no row can run: {'; '.join(reasons)}. It needs {entry.data}")
    return plans


def _missing_input(row: PaperRow, entry: PaperEntry, options: ReproduceOptions, inputs: Inputs) -> str:
    """Return the reason for which a row has not all that it reads; an empty text if it has."""
    first = next(each for each in entry.rows if not each.missing and not each.scores_pairs)
    if (options.is_small or options.encoder) and not row.scores_pairs and row.encoder != first.encoder:
        return f"the one encoder that is given stands for {BACKBONES[first.encoder].title}"
    if row.origin in WRITING and row.source not in (*inputs.sources, *_OWN_INPUT):
        option = "--sentences FILE" if row.source == "premises" else f"--source {row.source}=FILE"
        return f"there are no sentences {row.source}; give {option}"
    if row.origin in (Origin.LABELLED, Origin.LABELLED_AND_CURATED) and inputs.labelled is None:
        return "there are no labelled triplets; give --labelled FILE"
    if row.llm == CHATGPT and not options.is_small and options.endpoint is None:
        return "ChatGPT needs an endpoint; give --endpoint URL"
    return ""


def _base(entry: PaperEntry, options: ReproduceOptions, inputs: Inputs) -> dict[str, object]:
    """Return the settings that the first row is compared with."""
    row = PaperRow("base", encoder=entry.rows[0].encoder)
    return _settings(row, _config(row, entry, options, inputs, of_entry=False))


def _config(
    row: PaperRow,
    entry: PaperEntry,
    options: ReproduceOptions,
    inputs: Inputs,
    *,
    of_entry: bool = True,
) -> Config:
    tree: dict[str, object] = {**base_tree(options, inputs)}
    if row.llm == CHATGPT and options.endpoint is not None:
        tree |= at_endpoint(options.endpoint, options.endpoint_model)
        tree["generate"] = {"omega": 0.0}
    tree["name"] = "reproduce"
    tree["store"] = options.store or f"runs/reproduce-{options.scale}"
    column = inputs.columns.get(row.source)
    tree["input"] = {
        "paths": [inputs.sources.get(row.source, row.source)],
        **({} if column is None else {"column": column}),
    }
    chosen = [*options.overrides]
    if not options.is_small:
        backbone = BACKBONES[row.encoder]
        chosen = [
            *_as_overrides(
                {
                    "train.encoder": options.encoder or backbone.encoder,
                    "train.mask.model": backbone.mask,
                    "train.mask.pooling": backbone.mask_pooling,
                }
            ),
            *chosen,
        ]
    if row.demonstrations is not None and inputs.labelled is not None:
        count, similarity = row.demonstrations
        shown = {"triplets": inputs.labelled, "count": count, "similarity": similarity}
        chosen += _as_overrides({"generate.demonstrations": shown})
    if of_entry:
        chosen += _as_overrides(entry.settings)
    return build_config(tree, [*chosen, *_as_overrides(row.settings)])


def _as_overrides(settings: Mapping[str, object]) -> list[str]:
    """Return settings as `--set` takes them; JSON is YAML."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def _settings(row: PaperRow, config: Config) -> dict[str, object]:
    """Return everything that decides the figures of a row, by dotted name."""
    found = dict(flat_settings(config.model_dump(mode="json", exclude=_NO_DIFFERENCE)))
    method = "the LLM scores pairs" if row.scores_pairs else str(row.method)
    return {
        **found,
        "trained on": str(row.origin),
        "method": method,
        "sentences": row.source,
        "copies": row.copies,
    }


def _changes(above: Mapping[str, object], here: Mapping[str, object]) -> Iterator[str]:
    """Yield the settings that differ; a section that only one side has is one line."""
    seen = set()
    for name, value in here.items():
        if name in above:
            if above[name] != value:
                yield f"{name}: {setting_as_text(above[name])} -> {setting_as_text(value)}"
        elif (section := _section_in(name, above)) is None:
            yield f"{name}: {setting_as_text(value)}"
        elif section not in seen:
            seen.add(section)
            main = _MAIN.get(section)
            state = f"{main} {setting_as_text(here[f'{section}.{main}'])}" if main else "on"
            yield f"{section}: null -> {state}"


def _section_in(name: str, other: Mapping[str, object]) -> str | None:
    """Return the section of a setting that the other side has as a value, which is null."""
    parts = name.split(".")
    places = (".".join(parts[:end]) for end in range(1, len(parts)))
    return next((place for place in places if place in other), None)
