"""The plan of a search: what all trials share, chosen once, so that trials differ only in the settings they try."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenloom.config import Config, Settings
from tokenloom.config_files import read_preset, read_toml
from tokenloom.data.sources import STDIN
from tokenloom.data.streams import is_pipe
from tokenloom.errors import CheckpointError, UsageError
from tokenloom.home import expand_home
from tokenloom.strict_json import dump_json
from tokenloom.training.automatic import automatic_settings, default_settings, is_automatic
from tokenloom.training.budget import parse_budget
from tokenloom.training.init_from import configure_init_from
from tokenloom.tuning.folder import SearchFolder
from tokenloom.tuning.space import Space, as_settings, flag_name, parse_space

DEFAULT_BUDGET = "1m"
DEFAULT_TRIALS = 12
# What a trial needs no time for, unless it is set: samples, and checkpoints besides the best and the last one.
_TRIAL_SETTINGS: Settings = {"sample": {"max_new_tokens": 0}, "train": {"save_interval": 1_000_000_000}}


@dataclass(frozen=True)
class Request:
    """A search as the user asks for it; a folder is continued by the same request, with any number of trials."""

    tries: Mapping[str, str]
    """Ranges or choices as text, by key."""
    settings: Mapping[str, Mapping[str, Any]]
    """Of the TOML file and of flags."""
    preset: str | None
    seconds: float | None
    """Budget of a trial."""


@dataclass(frozen=True)
class Plan:
    """A search, ready to run."""

    request: Request
    space: Space
    config: Config
    """The configuration of all trials, before the settings that each tries."""
    trials: int
    most_steps: int | None
    """Steps of a trial, or the most that are made within its budget; None if only the budget limits them."""

    def trial_config(self, values: Mapping[str, Any]) -> Config:
        """The configuration of a trial; raises `ConfigError` if its values contradict each other."""
        given = self.request.settings
        quiet = {
            section: {key: value for key, value in fields.items() if key not in given.get(section, {})}
            for section, fields in _TRIAL_SETTINGS.items()
        }
        return Config.of(self.config.model_dump(), quiet, as_settings(values))

    def most_steps_of(self, values: Mapping[str, Any]) -> int | None:
        """`most_steps`, unless the trial tries its own."""
        return values.get("train.max_steps", self.most_steps)

    def best_config(self, values: Mapping[str, Any]) -> Config:
        """The configuration of a trial without what makes trials short."""
        return Config.of(self.config.model_dump(), as_settings(values))

    def to_json(self) -> dict[str, object]:
        """The plan as search.json stores it."""
        return {
            "request": vars(self.request),
            "config": self.config.model_dump(mode="json"),
            "trials": self.trials,
            "most_steps": self.most_steps,
        }


def make_request(
    sources: Sequence[str | Path],
    tries: Mapping[str, Any],
    preset: str | None,
    config: str | Path | None,
    settings: Settings | None,
    budget: str | float | None,
) -> tuple[Request, Space]:
    """The request that arguments stand for, validated on its own; raises `UsageError`."""
    space = parse_space(tries)
    if settings:
        for key in space:
            section, field = key.split(".")
            if field in settings.get(section, {}):
                raise UsageError(f"{flag_name(key)} is set and tried. Omit one of the two.")
    if any(str(source) == STDIN or is_pipe(expand_home(str(source))) for source in sources):
        raise UsageError("a search reads its text for every trial, which a pipe cannot repeat. Write it to a file.")
    layers: list[Settings] = [read_toml(Path(config)) if config else {}, settings or {}]
    if sources:
        layers.append({"data": {"sources": [str(source) for source in sources]}})
    # Reports unknown keys and invalid values.
    Config.of(read_preset(preset) if preset else default_settings(layers), *layers)
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values)
    if budget is None and not _has_steps(preset, merged) and "train.max_steps" not in space:
        budget = DEFAULT_BUDGET
    request = Request(
        {key: str(candidates) for key, candidates in space.items()},
        merged,
        preset,
        parse_budget(str(budget)) if budget is not None else None,
    )
    return _as_saved(request), space


def new_plan(request: Request, space: Space, trials: int | None) -> tuple[Plan, list[str]]:
    """The plan of a new search, and notices: how its model was chosen. Raises `TokenloomError`."""
    overrides = [request.settings]
    first = read_preset(request.preset) if request.preset else default_settings(overrides)
    resolved, notices = Config.of(first, *overrides), list[str]()
    if resolved.train.init_from is not None:
        resolved, notices = configure_init_from(
            resolved.train.init_from, read_preset(request.preset) if request.preset else {}, overrides
        )
    has_steps = _has_steps(request.preset, request.settings)
    if request.preset is None and request.seconds is not None and is_automatic(resolved):
        choice = automatic_settings(resolved, overrides, time.time() + request.seconds)
        resolved, notices = Config.of(first, choice.settings, *overrides), [*choice.reasons]
        has_steps = has_steps or "max_steps" in choice.settings.get("train", {})
    most_steps = resolved.train.max_steps if has_steps or request.seconds is None else None
    return Plan(request, space, resolved, _number_of_trials(trials, DEFAULT_TRIALS), most_steps), notices


def saved_plan(folder: SearchFolder, trials: int | None, request: Request | None = None) -> Plan:
    """The plan that a folder was started with, for `trials` trials if that is given.

    Raises `CheckpointError` if the folder has none, and `UsageError` if it is that of another `request`.
    """
    record = folder.record()
    if record is None:
        raise CheckpointError(f"{folder.path} is not a search: it has no {folder.record_file.name}. Check the name.")
    try:
        plan = record["plan"]
        saved = Request(**plan["request"])
        config, planned, most_steps = Config.of(plan["config"]), int(plan["trials"]), plan["most_steps"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder.record_file} is invalid: {error!r}. Choose another --out.") from None
    if request is not None and (difference := _difference(saved, request)):
        raise UsageError(
            f"{folder.path} has another search: {difference}. Choose another --out, or --resume it as it is."
        )
    return Plan(saved, parse_space(saved.tries), config, _number_of_trials(trials, planned), most_steps)


def _has_steps(preset: str | None, settings: Settings) -> bool:
    layers: list[Settings] = [read_preset(preset) if preset else {}, settings]
    return any("max_steps" in layer.get("train", {}) for layer in layers)


def _number_of_trials(trials: int | None, default: int) -> int:
    number = default if trials is None else trials
    if number < 1:
        raise UsageError(f"--trials must be at least 1, got {number}.")
    return number


def _as_saved(request: Request) -> Request:
    """The request as search.json returns it: with lists, and text for paths."""
    return Request(**json.loads(dump_json(vars(request))))


def _difference(saved: Request, request: Request) -> str | None:
    """The first thing in which two requests differ."""
    rows = [
        ("--preset", saved.preset, request.preset),
        ("--budget in seconds", saved.seconds, request.seconds),
        *(
            (f"--try {flag_name(key)}", saved.tries.get(key), request.tries.get(key))
            for key in _keys(saved.tries, request.tries)
        ),
        *(
            (flag_name(f"{section}.{key}"), before.get(key), now.get(key))
            for section in _keys(saved.settings, request.settings)
            for before, now in [(saved.settings.get(section, {}), request.settings.get(section, {}))]
            for key in _keys(before, now)
        ),
    ]
    return next((f"its {name} was {_shown(was)}, not {_shown(now)}" for name, was, now in rows if was != now), None)


def _keys(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    return list(dict.fromkeys([*a, *b]))


def _shown(value: object) -> str:
    return "set" if value is None else str(value)
