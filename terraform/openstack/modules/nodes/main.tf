locals {
  uuid   = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
  images = { for name, node in var.nodes : name => coalesce(node.image, var.image) }
  named  = toset([for image in values(local.images) : image if !can(regex(local.uuid, image))])
  public = toset([for name, node in var.nodes : name if var.public || node.public])
  labels = { for name, node in var.nodes : name => join(" ", [for key, value in node.labels : "${key}=${value}"]) }
}

data "openstack_images_image_v2" "named" {
  for_each = local.named

  name        = each.value
  most_recent = true
}

resource "openstack_compute_servergroup_v2" "control" {
  count = var.control_spread ? 1 : 0

  name     = "${var.site}-control"
  policies = ["soft-anti-affinity"]
}

# A resource of its own: a node that is replaced keeps its address.
resource "openstack_networking_port_v2" "node" {
  for_each = var.nodes

  name               = each.key
  network_id         = var.network
  admin_state_up     = true
  security_group_ids = concat([var.groups["nodes"]], [for class in each.value.classes : var.groups[class]])
  tags               = var.tags

  fixed_ip {
    subnet_id = var.subnet
  }
}

resource "openstack_compute_instance_v2" "node" {
  for_each = var.nodes

  name              = each.key
  flavor_name       = each.value.size
  image_id          = try(data.openstack_images_image_v2.named[local.images[each.key]].id, local.images[each.key])
  availability_zone = each.value.zone
  config_drive      = true
  user_data         = var.user_data

  # What the inventory plugin ashlar.stack.cloud reads, for whom there is no state.
  metadata = merge(
    { ashlar_site = var.site, ashlar_pool = each.value.pool, ashlar_classes = join("_", each.value.classes), ashlar_user = var.user },
    local.labels[each.key] == "" ? {} : { ashlar_labels = local.labels[each.key] },
  )

  network {
    port = openstack_networking_port_v2.node[each.key].id
  }

  dynamic "block_device" {
    for_each = var.boot_volume ? ["system"] : []

    content {
      uuid                  = try(data.openstack_images_image_v2.named[local.images[each.key]].id, local.images[each.key])
      source_type           = "image"
      destination_type      = "volume"
      volume_size           = each.value.disk_gib
      volume_type           = var.volume_type
      boot_index            = 0
      delete_on_termination = true
    }
  }

  dynamic "scheduler_hints" {
    for_each = var.control_spread && contains(each.value.classes, "control") ? [openstack_compute_servergroup_v2.control[0].id] : []

    content {
      group = scheduler_hints.value
    }
  }

  # What would make a running node anew is for new nodes only. To take it over on one node:
  # tofu apply -replace='module.nodes.openstack_compute_instance_v2.node["<node>"]', after playbooks have drained it.
  lifecycle {
    ignore_changes = [image_id, image_name, user_data, availability_zone, config_drive, block_device, scheduler_hints]

    precondition {
      condition     = length(local.labels[each.key]) <= 255
      error_message = "Labels of ${each.key} are ${length(local.labels[each.key])} characters long as one text. Allowed: 255, as Nova's metadata holds them. Set the others by Ansible."
    }
  }
}

resource "openstack_networking_floatingip_v2" "node" {
  for_each = local.public

  pool        = var.external_network
  description = each.key
  tags        = var.tags
}

resource "openstack_networking_floatingip_associate_v2" "node" {
  for_each = local.public

  floating_ip = openstack_networking_floatingip_v2.node[each.key].address
  port_id     = openstack_networking_port_v2.node[each.key].id
  depends_on  = [openstack_compute_instance_v2.node]
}
