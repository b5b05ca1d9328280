"""Hosts in network namespaces on a kernel with IPVS; boots such a kernel where the machine has none.

One rule: whatever the lab starts ends with its owner, however the owner ends.

    with boot() as kernel, kernel.lay_out() as lab:
        lab.host("client").run("ping", "-c1", lab.host("director").address("lan")).check()
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director.lab.kernels import Kernel


def boot(kernel: str = "auto", *, timeout_s: float = 60.0, ipvs: bool = True) -> "Kernel":
    """Boot a kernel for hosts: `uml` (Debian's user-mode-linux), `host` (this machine's own), or `auto`.

    `auto` takes the machine's own when it has IPVS and we are root. `ipvs=False` accepts a machine's kernel
    that has none. Use the result as a context manager; `kernel.reason` says why it was chosen.

    Raises: director.lab.errors.LabError, with what to do.
    """
    from director.lab.kernels import boot_kernel

    return boot_kernel(kernel, timeout_s=timeout_s, ipvs=ipvs)
