"""`baton doctor`: looks at everything, prints a table, and ends with status 1 if anything is red."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import ClassVar

from pydantic import Field
from rich.console import Console
from rich.table import Table

from baton.doctor.broker import look_at_redis
from baton.doctor.finding import Colour, Finding
from baton.doctor.fleet import look_at_workers
from baton.doctor.gateway import look_at_gateway
from baton.doctor.machine import look_at_disk, look_at_gpus
from baton.doctor.package import look_at_packages
from shared.connection import open_redis
from shared.settings import Settings

_STYLES = {Colour.GREEN: "green", Colour.YELLOW: "yellow", Colour.RED: "bold red"}
CLIENT_RETRIES = 1
"""A doctor doesn't wait for the patient to get well."""


class DoctorSettings(Settings):
    """Find out what is wrong with Redis, the GPUs, the disk, the versions, the workers and the gateway's port."""

    aliases: ClassVar[dict[str, str]] = {"json": "as_json"}

    host: str = Field("127.0.0.1", description="Address of the gateway.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port of the gateway.")
    as_json: bool = Field(False, description="Print JSON instead of a table.")


def main() -> None:
    """Print what was found; the exit status is 1 if anything is red."""
    settings = DoctorSettings.read()
    findings = asyncio.run(_look(settings))
    worst = max(finding.colour for finding in findings)
    if settings.as_json:
        shown = [asdict(finding) | {"colour": finding.colour.name.lower()} for finding in findings]
        sys.stdout.write(json.dumps({"worst": worst.name.lower(), "findings": shown}, indent=2) + "\n")
    else:
        _show(findings)
    sys.exit(int(worst is Colour.RED))


async def _look(settings: DoctorSettings) -> list[Finding]:
    async with open_redis(settings, CLIENT_RETRIES) as redis:
        of_redis = [*await look_at_redis(redis), *await look_at_workers(redis)]
    on_disk = [*look_at_gpus(), *look_at_disk(), *look_at_packages()]
    return [*of_redis, *look_at_gateway(settings.host, settings.port), *on_disk]


def _show(findings: list[Finding]) -> None:
    table = Table("", "area", "what", "found", "what to do")
    for finding in findings:
        colour = finding.colour.name.lower()
        table.add_row(colour, finding.area, finding.name, finding.fact, finding.advice, style=_STYLES[finding.colour])
    console = Console()
    if not console.is_terminal:  # whoever reads it then counts no columns
        console.width = 200
    console.print(table)
