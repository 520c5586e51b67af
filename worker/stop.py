"""What an operator's signals mean: the first one drains, the second one hurries, the third one ends it here."""

import asyncio
import logging
import os
import signal

logger = logging.getLogger(__name__)

KILLED_STATUS = 128 + signal.SIGKILL
"""What a shell would say of a process that was not allowed to end by itself."""


class Stop:
    """Created where the process starts; SIGTERM and SIGINT mean the same."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """No further job is begun."""
        self.hurry = asyncio.Event()
        """What runs is handed over at once."""

    def listen(self) -> None:
        """Take the signals from now on."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self.press)

    def press(self) -> None:
        """Become one degree more urgent."""
        if self.hurry.is_set():
            os._exit(KILLED_STATUS)
        if self.asked.is_set():
            logger.info("handing running jobs over; the next signal ends this process at once")
            self.hurry.set()
        self.asked.set()
