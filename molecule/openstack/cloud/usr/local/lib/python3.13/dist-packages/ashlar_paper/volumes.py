# SPDX-License-Identifier: Apache-2.0
"""A volume driver of cinder that stores nothing."""

from __future__ import annotations

from typing import Any

from cinder.volume import driver


class PaperVolumes(driver.VolumeDriver):  # type: ignore[misc]
    VERSION = "1.0"

    def check_for_setup_error(self) -> None:
        """There is nothing that could be wrong."""

    def _update_volume_stats(self) -> None:
        self._stats = {
            "volume_backend_name": "paper",
            "vendor_name": "Ashlar",
            "driver_version": self.VERSION,
            "storage_protocol": "paper",
            "pools": [{"pool_name": "paper", "total_capacity_gb": 1_000_000, "free_capacity_gb": 1_000_000, "reserved_percentage": 0}],
        }

    def create_volume(self, volume: Any) -> None: ...

    def delete_volume(self, volume: Any) -> None: ...

    def extend_volume(self, volume: Any, new_size: int) -> None: ...

    def copy_image_to_volume(self, context: Any, volume: Any, image_service: Any, image_id: str, disable_sparse: bool = False) -> None: ...

    def ensure_export(self, context: Any, volume: Any) -> None: ...

    def create_export(self, context: Any, volume: Any, connector: Any) -> None: ...

    def remove_export(self, context: Any, volume: Any) -> None: ...

    def initialize_connection(self, volume: Any, connector: Any) -> dict[str, Any]:
        return {"driver_volume_type": "paper", "data": {"volume_id": volume.id}}

    def terminate_connection(self, volume: Any, connector: Any, **kwargs: Any) -> None: ...
