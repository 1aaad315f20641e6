"""What is committed holds no key, token or password of anybody's."""

import subprocess
from pathlib import Path

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

from gateway.door.keys import KEY, NOBODY

ROOT = Path(__file__).parents[1]
# By the forms that keys have. Not by how random a text looks: what is pinned by SHA-256 all does;
# and an address is no secret.
FORMS = [
    form()
    for form in get_mapping_from_secret_type_to_class().values()
    if issubclass(form, RegexBasedDetector) and form.secret_type != "Public IP (ipv4)"
]


def secrets_in(text: str) -> list[str]:
    """Their kinds; never themselves, for what a test says is kept in logs."""
    found = [form.secret_type for form in FORMS if set(form.analyze_string(text))]
    return found + ["Consilium key"] * bool(KEY.search(text))


def test_no_tracked_file_holds_one() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = {}
    for name in listed.stdout.split("\0")[:-1]:
        held = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in held and (kinds := secrets_in(held.decode())):
            found[name] = kinds
    assert len(listed.stdout) > 1000 and not found


@pytest.mark.parametrize(
    ("begins", "ends", "kind"),
    [
        ("consilium_" + NOBODY.id, "_" + "x" * 43, "Consilium key"),
        ("-----BEGIN RSA ", "PRIVATE KEY-----", "Private Key"),
        ("ghp_", "a" * 36, "GitHub Token"),
        ("AKIA", "A1" * 8, "AWS Access Key"),
        ("redis://store:", "correcthorse@redis:6379", "Basic Auth Credentials"),
    ],
)
def test_one_would_be_found(begins: str, ends: str, kind: str) -> None:
    """In the midst of a file. Here each is in two parts, or it would be found in this one."""
    assert kind in secrets_in(f"# as it was\nkey = {begins}{ends}\n")
