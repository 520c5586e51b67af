"""The engine on a device that isn't the host, where there is no GPU: nothing mixes devices, and nothing is lost.

What a GPU's kernels compute is not shown here, nor what numbers look like that haven't arrived yet.
"""

import subprocess
import sys


def test_engine_works_on_devices_that_hold_their_numbers_in_the_hosts_memory():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/worker/engine/rehearsal.py"]
    rehearsed = subprocess.run(command, capture_output=True, text=True)

    assert rehearsed.returncode == 0, rehearsed.stdout[-8000:]
    assert "16 passed" in rehearsed.stdout
