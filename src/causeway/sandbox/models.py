"""The image models the Replicate stand-in knows, and what they accept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

JsonType = Literal["string", "integer", "number", "boolean"]


@dataclass(frozen=True, slots=True)
class InputField:
    """One input of a model, in the terms of its JSON schema."""

    type: JsonType
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of `invalid_fields`."""

    type: str
    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its `owner/name`."""

    name: str
    fields: dict[str, InputField]
    #: How `output` looks: a list of URLs, one URL, or a `data:` URI.
    output: Literal["list", "url", "data"] = "list"
    #: Whether input it does not know is an error, whatever the settings say.
    strict: bool = False
    default_format: str = "webp"

    @property
    def version(self) -> str:
        """Return the id of its only version, 64 hex digits."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    def problems(self, sent: dict[str, Any], *, refuse_unknown: bool) -> list[Problem]:
        """Return what is wrong with an input, in the words of the real API."""
        found: list[Problem] = []
        if "prompt" not in sent:
            found.append(Problem("required", "input", "prompt is required"))
        for name, value in sent.items():
            known = self.fields.get(name)
            if known is None:
                if refuse_unknown or self.strict:
                    text = f"Additional property {name} is not allowed"
                    found.append(Problem("additional_property_not_allowed", "input", text))
            else:
                found += _check(name, known, value)
        return found


def _check(name: str, field: InputField, value: object) -> list[Problem]:
    where = f"input.{name}"
    given = _json_type(value)
    if given != field.type and not (field.type == "number" and given == "integer"):
        text = f"Invalid type. Expected: {field.type}, given: {given}"
        return [Problem("invalid_type", where, text)]
    if field.choices and value not in field.choices:
        allowed = ", ".join(json.dumps(choice) for choice in field.choices)
        text = f"{name} must be one of the following: {allowed}"
        return [Problem("enum", where, text)]
    if isinstance(value, int | float):
        if field.minimum is not None and value < field.minimum:
            text = f"Must be greater than or equal to {field.minimum:g}"
            return [Problem("number_gte", where, text)]
        if field.maximum is not None and value > field.maximum:
            text = f"Must be less than or equal to {field.maximum:g}"
            return [Problem("number_lte", where, text)]
    return []


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


_FLUX = {
    "prompt": InputField("string"),
    "num_outputs": InputField("integer", 1, 4),
    "aspect_ratio": InputField(
        "string",
        choices=("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"),
    ),
    "output_format": InputField("string", choices=("webp", "jpg", "png")),
    "output_quality": InputField("integer", 0, 100),
    "num_inference_steps": InputField("integer", 1, 4),
    "seed": InputField("integer"),
    "go_fast": InputField("boolean"),
    "megapixels": InputField("string", choices=("1", "0.25")),
    "disable_safety_checker": InputField("boolean"),
}

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("black-forest-labs/flux-schnell", _FLUX),
        Model(
            "black-forest-labs/flux-dev",
            {**_FLUX, "num_inference_steps": InputField("integer", 1, 50)},
        ),
        Model("black-forest-labs/flux-1.1-pro", _FLUX, output="url"),
        # Models of the stand-in's own, each for one habit found among small ones.
        Model(
            "sandbox/prompt-only",
            {"prompt": InputField("string")},
            output="url",
            strict=True,
            default_format="png",
        ),
        Model("sandbox/data-uri", _FLUX, output="data", default_format="png"),
    )
}
BY_VERSION: dict[str, Model] = {model.version: model for model in MODELS.values()}


def by_reference(reference: str) -> Model | None:
    """Return the model of `owner/name`, `owner/name:version` or a version alone."""
    name, colon, version = reference.rpartition(":")
    if colon:
        model = MODELS.get(name)
        return model if model is not None and model.version == version else None
    return BY_VERSION.get(reference) or MODELS.get(reference)
