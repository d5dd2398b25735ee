# Copyright 2026 the ndp_ros authors
# SPDX-License-Identifier: BSD-3-Clause

"""The licence of the source files, as the linter ``ament_copyright`` reads it.

That linter knows licences by their texts. The entry point ``ament_copyright.license`` adds the two
lines that begin each source file of this package.
"""

from __future__ import annotations

from typing import NamedTuple

from ndp_ros.paths import share

HOLDER = "the ndp_ros authors"
SPDX = "BSD-3-Clause"


class License(NamedTuple):
    """The fields of ``ament_copyright.licenses.LicenseEntryPoint``, which need not be installed."""

    name: str
    spdx: str
    file_headers: list[str]
    """Beginnings of source files; each text may hold ``{copyright}``."""
    license_files: list[str]
    """Texts of the file ``LICENSE``."""
    contributing_files: list[str]
    """Texts in the file ``CONTRIBUTING.md``."""


def bsd_3_clause() -> License:
    """Return the licence of this package."""
    text = share("LICENSE").read_text(encoding="utf-8")
    return License(
        name="3-Clause BSD License, as an SPDX identifier",
        spdx=SPDX,
        file_headers=[f"{{copyright}}\nSPDX-License-Identifier: {SPDX}\n"],
        license_files=[text.replace(f"Copyright (c) 2026, {HOLDER}", "{copyright}")],
        contributing_files=["Contributions are under the [3-Clause BSD License](LICENSE)."],
    )


LICENSE = bsd_3_clause()
