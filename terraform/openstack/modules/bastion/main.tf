locals {
  is_id = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.image))
}

data "openstack_images_image_v2" "bastion" {
  count = local.is_id ? 0 : 1

  name        = var.image
  most_recent = true
}

resource "openstack_networking_port_v2" "bastion" {
  name               = "${var.site}-bastion"
  network_id         = var.network
  admin_state_up     = true
  security_group_ids = [var.security_group]
  tags               = var.tags

  fixed_ip {
    subnet_id = var.subnet
  }
}

resource "openstack_compute_instance_v2" "bastion" {
  name              = "${var.site}-bastion"
  flavor_name       = var.size
  image_id          = local.is_id ? var.image : data.openstack_images_image_v2.bastion[0].id
  availability_zone = var.zone
  config_drive      = true
  user_data         = var.user_data
  # It is none of the site's nodes, so it does not bear the metadata that these are found by.
  metadata = { ashlar_site = "${var.site}-bastion" }

  network {
    port = openstack_networking_port_v2.bastion.id
  }

  lifecycle {
    ignore_changes = [image_id, image_name, user_data, availability_zone]
  }
}

resource "openstack_networking_floatingip_v2" "bastion" {
  pool        = var.external_network
  description = "${var.site}-bastion"
  tags        = var.tags
}

resource "openstack_networking_floatingip_associate_v2" "bastion" {
  floating_ip = openstack_networking_floatingip_v2.bastion.address
  port_id     = openstack_networking_port_v2.bastion.id
  depends_on  = [openstack_compute_instance_v2.bastion]
}
