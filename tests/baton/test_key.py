"""`baton key`: what it prints opens a gateway, and the gateway's file never holds the key."""

import subprocess

import pytest

from api.keyring import ApiKey, KeyFileError, KeyRing, read_keys
from tests.baton.deployed import BATON, without_settings


def baton_key(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BATON, "key", *arguments], env=without_settings(), capture_output=True, text=True)


def test_printed_lines_are_a_file_that_knows_the_printed_keys(tmp_path):
    limited = baton_key("alice", "--requests-per-minute", "60", "--models", "a", "b", "--min_priority=-5")
    plain = baton_key("bob", "--manages_adapters")
    path = tmp_path / "keys.yaml"
    path.write_text(limited.stdout + plain.stdout)

    ring = KeyRing(None, path)
    key = limited.stderr.split()[-1]

    alice, bob = ring.find(key.encode()), ring.find(plain.stderr.split()[-1].encode())
    assert isinstance(alice, ApiKey)
    assert (alice.name, alice.requests_per_minute, alice.models, alice.min_priority) == ("alice", 60, ("a", "b"), -5)
    assert isinstance(bob, ApiKey)
    assert bob.manages_adapters
    assert ring.find(b"guess") is None
    assert key not in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("a b",), "name: String should match"), (("a", "--max_queued", "0"), "max_queued: Input should be greater")],
)
def test_impossible_key_is_refused(arguments, message):
    shown = baton_key(*arguments)

    assert shown.returncode == 1
    assert message in shown.stderr
    assert "sk-" not in shown.stdout + shown.stderr


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "the whole: Input should be a valid list"),
        ("- {name: a}", "0.sha256: Field required"),
        ("- {name: a, sha256: sk-secret}", "0.sha256: String should match"),
        (f"- {{name: a, sha256: '{'0' * 64}', rate: 5}}", "0.rate: Extra inputs"),
        (f"- {{name: a, sha256: '{'0' * 64}'}}\n" * 2, "two keys are named a"),
        ("sk-secret: [", "neither YAML nor JSON"),
    ],
)
def test_wrong_file_is_told_without_showing_what_is_in_it(tmp_path, written, message):
    path = tmp_path / "keys.yaml"
    path.write_text(written)

    with pytest.raises(KeyFileError, match=r"keys\.yaml") as refusal:
        read_keys(path)

    assert message in str(refusal.value)
    assert "sk-secret" not in str(refusal.value)


def test_gateway_with_a_wrong_file_does_not_start(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text("- nothing")

    shown = subprocess.run([*BATON, "api", "--api_keys_file", path], capture_output=True, text=True, timeout=60)

    assert shown.returncode == 1
    assert shown.stderr.startswith("api: ")
