"""The keeper: a small process that starts a lab's kernel, outlives its owner, and ends what it started.

One rule: the kernel's processes and the folder go away in one place, here, whether the owner leaves, crashes or
is killed. A session of its own keeps it out of whatever ends the owner.
"""

import contextlib
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

from director.lab.folder import SESSION, end_session

_LEAVE_S = 5.0
"""How long the agent may take to switch its kernel off."""


def main() -> None:
    """`keeper OWNER_PID FOLDER BELL_FD COMMAND...`, with the owner's pipe as standard input."""
    owner, folder, bell = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    kernel = None
    try:
        kernel = _start(folder, bell)
        os.close(bell)  # from here on its end of file means the kernel's end
        _wait_for_end_of(owner, kernel, folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if kernel is not None:
                kernel.wait(_LEAVE_S)
    finally:
        if kernel is not None:
            end_session(kernel.pid, grace_s=2.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                kernel.wait(5.0)
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, bell: int) -> "subprocess.Popen[bytes] | None":
    """Start the kernel; if it cannot be, the console says why and the owner will read it."""
    with (folder / "console").open("wb") as console:
        try:
            kernel = subprocess.Popen(
                sys.argv[4:],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                pass_fds=[bell],
                start_new_session=True,
            )
        except OSError as error:
            console.write(str(error).encode())
            return None
    (folder / SESSION).write_text(str(kernel.pid))
    return kernel


def _wait_for_end_of(owner: int, kernel: "subprocess.Popen[bytes] | None", folder: Path) -> None:
    """Return once the owner is gone or has closed its pipe; a kernel that ends before only loses its session."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    with contextlib.suppress(ProcessLookupError):
        owner_fd = os.pidfd_open(owner)
        poll.register(owner_fd, select.POLLIN)
        kernel_fd = -1
        if kernel is not None:
            kernel_fd = os.pidfd_open(kernel.pid)
            poll.register(kernel_fd, select.POLLIN)
        while kernel is not None and [fd for fd, _ in poll.poll()] == [kernel_fd]:
            poll.unregister(kernel_fd)
            exit_code = kernel.wait()
            end_session(kernel.pid)
            with (folder / "console").open("a") as console:
                console.write(f"\n[the kernel's process ended with {exit_code}]\n")
        poll.poll()
