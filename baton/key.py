"""`baton key`: makes an API key, shows it once, and prints the line that lets a gateway know it."""

import argparse
import json
import secrets
import sys

from pydantic import ValidationError

from api.keyring import ApiKey, hash_key

PREFIX = "sk-baton-"


def main() -> None:
    """Print the key to stderr and its line to stdout, so that `>> keys.yaml` keeps the one and shows the other."""
    given = vars(_parser().parse_args())
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        entry = ApiKey(**given, sha256=hash_key(key.encode()))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        sys.exit(f"baton key: {first['loc'][0]}: {first['msg']}")
    sys.stderr.write(f"The key, which is shown only now: {key}\n")
    sys.stdout.write(f"- {json.dumps(entry.model_dump(exclude_defaults=True))}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make an API key for --api_keys_file.", argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    parser.add_argument("name", help="What logs call whoever has the key.")
    for field, help_ in (
        ("requests_per_minute", "Requests it may send in a minute."),
        ("max_concurrent", "Requests it may have at once, over all gateways."),
        ("max_queued", "Requests of it that may wait for a worker."),
        ("min_priority", "The most urgent priority it may ask for; lower is more urgent."),
    ):
        parser.add_argument(f"--{field}", f"--{field.replace('_', '-')}", type=int, metavar="N", dest=field, help=help_)
    parser.add_argument(
        "--models", nargs="+", metavar="MODEL", help="The models and adapters it may ask; all if unset."
    )
    parser.add_argument("--manages_adapters", action="store_true", help="It may load and unload adapters.")
    return parser
