# Resources of their own: a node that is replaced gets its volumes back.

resource "aws_ebs_volume" "data" {
  for_each = var.volumes

  availability_zone = each.value.zone
  size              = each.value.size_gib
  type              = coalesce(each.value.type, "gp3")
  encrypted         = true
  kms_key_id        = var.kms_key
  final_snapshot    = var.snapshot
  tags              = { Name = replace(each.key, "/", "-"), ashlar_node = each.value.node, ashlar_volume = each.value.name }

  lifecycle {
    ignore_changes = [availability_zone, kms_key_id]
  }
}

resource "aws_volume_attachment" "data" {
  for_each = var.volumes

  # The name that AWS asks for; a machine of today sees NVMe names instead, hence the path in the output.
  device_name                    = "/dev/sd${substr("fghijklmnop", each.value.position - 1, 1)}"
  volume_id                      = aws_ebs_volume.data[each.key].id
  instance_id                    = var.instances[each.value.node]
  stop_instance_before_detaching = true
}
