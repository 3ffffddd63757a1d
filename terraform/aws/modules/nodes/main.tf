# Costs nothing and is there in any case: it can't be deleted while a node stands in it.
resource "aws_placement_group" "control" {
  name     = "${var.site}-control"
  strategy = "spread"
}

resource "aws_instance" "node" {
  for_each = var.nodes

  ami                         = coalesce(each.value.image, var.image)
  instance_type               = each.value.size
  subnet_id                   = var.public || each.value.public ? lookup(var.public_subnets, each.value.zone, null) : lookup(var.private_subnets, each.value.zone, null)
  associate_public_ip_address = var.public || each.value.public
  vpc_security_group_ids      = concat([var.groups["nodes"]], [for class in each.value.classes : var.groups[class]])
  placement_group             = var.control_spread && contains(each.value.classes, "control") ? aws_placement_group.control.name : null
  user_data                   = var.user_data
  source_dest_check           = true # pods travel inside VXLAN, from node to node

  # What the inventory plugin ashlar.stack.cloud reads, for whom there is no state.
  tags = merge(
    { Name = each.key, ashlar_pool = each.value.pool, ashlar_classes = join("_", each.value.classes), ashlar_user = var.user },
    length(each.value.labels) == 0 ? {} : { ashlar_labels = join(" ", [for key, value in each.value.labels : "${key}=${value}"]) },
  )

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted             = true
    kms_key_id            = var.kms_key
    volume_type           = "gp3"
    volume_size           = each.value.disk_gib
    delete_on_termination = true
    tags                  = { Name = each.key }
  }

  # What would make a running node anew, or stop it, is for new nodes only. To take it over on one node:
  # tofu apply -replace='module.nodes.aws_instance.node["<node>"]', after playbooks have drained it.
  lifecycle {
    ignore_changes = [ami, user_data, subnet_id, associate_public_ip_address, placement_group, root_block_device[0].kms_key_id]
  }
}
