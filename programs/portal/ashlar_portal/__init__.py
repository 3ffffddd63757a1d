# SPDX-License-Identifier: Apache-2.0
"""The site in a browser. `main` starts, `web` answers, `views` decides what is shown, `sources` asks upstreams, `login` lets people in."""

from __future__ import annotations
