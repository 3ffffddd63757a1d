# Resources of their own: a node that is replaced gets its volumes back.

resource "openstack_blockstorage_volume_v3" "data" {
  for_each = var.volumes

  name                 = replace(each.key, "/", "-")
  size                 = each.value.size_gib
  volume_type          = each.value.type == null ? var.type : each.value.type
  availability_zone    = lookup(var.zones, each.value.zone, null)
  enable_online_resize = true
  metadata             = { ashlar_site = var.site, ashlar_node = each.value.node, ashlar_volume = each.value.name }

  lifecycle {
    ignore_changes = [availability_zone, volume_type]
  }
}

resource "openstack_compute_volume_attach_v2" "data" {
  for_each = var.volumes

  instance_id = var.instances[each.value.node]
  volume_id   = openstack_blockstorage_volume_v3.data[each.key].id
}
