# Resources of their own: a node that is replaced gets its volumes back. Google encrypts every disk; kms_key says with whose key.

resource "google_compute_disk" "data" {
  for_each = var.volumes

  name                           = replace(each.key, "/", "-")
  zone                           = each.value.zone
  size                           = each.value.size_gib
  type                           = coalesce(each.value.type, "pd-balanced")
  create_snapshot_before_destroy = var.snapshot
  labels                         = { ashlar_node = each.value.node, ashlar_volume = each.value.name }

  dynamic "disk_encryption_key" {
    for_each = var.kms_key == null ? [] : [var.kms_key]

    content {
      kms_key_self_link = disk_encryption_key.value
    }
  }

  lifecycle {
    ignore_changes = [zone, disk_encryption_key]
  }
}

resource "google_compute_attached_disk" "data" {
  for_each = var.volumes

  disk        = google_compute_disk.data[each.key].id
  instance    = var.instances[each.value.node]
  zone        = var.zones[each.value.node]
  device_name = each.value.name
}
