"""What ci/nightly reads: a profile file (docs/formats/nightly.md) and the pins, checked before anything runs."""
import json
import re

PROFILES = ("quick", "ci", "nightly", "full")
OWN_OPTIONS = ("--model", "--out", "--baseline", "--base", "--profile", "--resume", "--json")  # given from other keys
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
KEYS = {"format": int, "suites": list, "profile": str, "options": list, "confirm": bool, "keep": int, "models": list}
DEFAULTS = {"options": [], "confirm": True}
MODEL_KEYS = {"name": str, "path": str, "base": str, "baseline": str}
MODEL_DEFAULTS = {"base": "", "baseline": ""}


class BadInput(Exception):
    """One message: what, where, expected against got, and what to do."""


def load(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None


def checked(value, keys, defaults, where):
    """`value` with its defaults, if it is an object of just these keys and types."""
    if not isinstance(value, dict):
        raise BadInput(f"{where}: expected an object, got {json.dumps(value)}")
    for key, given in value.items():
        if key not in keys:
            raise BadInput(f"{where}: unknown key \"{key}\"; there are: {', '.join(keys)}")
        if type(given) is not keys[key]:
            kind = {int: "a whole number", str: "a text", list: "a list", bool: "true or false"}[keys[key]]
            raise BadInput(f"{where}.{key}: expected {kind}, got {json.dumps(given)}")
    for key in keys:
        if key not in value and key not in defaults:
            raise BadInput(f"{where}: \"{key}\" is missing")
    return {key: value.get(key, defaults.get(key)) for key in keys}


def texts(profile, key, where):
    for text in profile[key]:
        if not isinstance(text, str) or not text:
            raise BadInput(f"{where}.{key}: expected texts, got {json.dumps(text)}")


def read_profile(path):
    where = str(path)
    profile = checked(load(path), KEYS, DEFAULTS, where)
    if profile["format"] != 1:
        raise BadInput(f"{where}.format: expected 1, got {profile['format']}")
    if profile["profile"] not in PROFILES:
        raise BadInput(f"{where}.profile: expected {', '.join(PROFILES)}, got \"{profile['profile']}\"")
    if profile["keep"] < 1:
        raise BadInput(f"{where}.keep: expected at least 1, got {profile['keep']}")
    texts(profile, "suites", where)
    texts(profile, "options", where)
    for option in profile["options"]:
        if option.split("=")[0] in OWN_OPTIONS:
            raise BadInput(f"{where}.options: {option} comes from the profile's other keys; leave it out")
    if not profile["suites"] or not profile["models"]:
        raise BadInput(f"{where}: expected at least one suite and one model")
    models, names = [], set()
    for i, given in enumerate(profile["models"]):
        model = checked(given, MODEL_KEYS, MODEL_DEFAULTS, f"{where}.models[{i}]")
        if not NAME.fullmatch(model["name"]):
            raise BadInput(f"{where}.models[{i}].name: expected letters, digits, '.', '_' and '-', got \"{model['name']}\"")
        if model["name"] in names:
            raise BadInput(f"{where}.models[{i}].name: \"{model['name']}\" is there twice")
        names.add(model["name"])
        models.append(model)
    return {**profile, "models": models}


def read_pins(history):
    """Model to night."""
    path = history / "pins.json"
    if not path.exists():
        return {}
    pins = load(path)
    if not isinstance(pins, dict) or not all(isinstance(night, str) for night in pins.values()):
        raise BadInput(f"{path}: expected an object of nights by model; mend it, or delete it and pin again")
    return pins


def check_pins(history, pins):
    """A pin whose run is gone is an error: a night without its baseline would pass unseen."""
    for name, night in pins.items():
        if not (history / night / name / "run" / "run.json").exists():
            raise BadInput(f"{history / 'pins.json'}: {name} is pinned to {night}, whose run is gone; pin another (--pin)")
