# SPDX-License-Identifier: Apache-2.0
"""A mechanism driver of neutron's ML2 that needs no agent: every port is bound to any host at once."""

from __future__ import annotations

from typing import Any

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class PaperPorts(api.MechanismDriver):  # type: ignore[misc]
    def initialize(self) -> None:
        """Nothing has to be made ready."""

    def bind_port(self, context: Any) -> None:
        segment = context.segments_to_bind[0]
        context.set_binding(segment[api.ID], portbindings.VIF_TYPE_BRIDGE, {portbindings.CAP_PORT_FILTER: True}, status=constants.PORT_STATUS_ACTIVE)
